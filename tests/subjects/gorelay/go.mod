module gorelay

go 1.21
