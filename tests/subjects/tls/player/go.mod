module player

go 1.21
