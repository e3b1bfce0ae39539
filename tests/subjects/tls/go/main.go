// HTTPS by Go's own library.
//
//	gotls serve PORT CERTIFICATE KEY                  HTTP/1.1 and HTTP/2; answers 200 to everything
//	gotls ask FILE PREFIX CONNECTIONS REQUESTS PORT.. HTTP/1.1; once there is FILE, asks each port for
//	                                                  PREFIX/<port>/<connection>-<number>
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// Answers from so far down that the stack has to grow on the way, and again in other goroutines.
func answer(w http.ResponseWriter, depth int) byte {
	var room [1024]byte
	room[depth%len(room)] = byte(depth)
	if depth == 0 {
		fmt.Fprint(w, "hello")
		return room[0]
	}
	return answer(w, depth-1) + room[1]
}

func serve(port, certificate, key string) {
	number := 0
	var lock sync.Mutex
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		lock.Lock()
		number++
		depth := number % 50
		lock.Unlock()
		answer(w, depth)
	})
	log.Fatal(http.ListenAndServeTLS("127.0.0.1:"+port, certificate, key, nil))
}

func ask(prefix string, connections, requests int, ports []string) {
	var all sync.WaitGroup
	for connection := 0; connection < connections; connection++ {
		for _, port := range ports {
			all.Add(1)
			go func(connection int, port string) {
				defer all.Done()
				dialed := 0
				transport := &http.Transport{
					TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
					Dial: func(network, address string) (net.Conn, error) {
						dialed++
						return net.Dial(network, address)
					},
				}
				client := &http.Client{Transport: transport}
				for number := 0; number < requests; number++ {
					url := fmt.Sprintf("https://127.0.0.1:%s%s/%s/%d-%d", port, prefix, port, connection, number)
					answer, err := client.Get(url)
					if err != nil {
						log.Fatal(err)
					}
					io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
					if answer.StatusCode != 200 || answer.ProtoMajor != 1 {
						log.Fatal(url, " ", answer.Proto, " ", answer.Status)
					}
				}
				transport.CloseIdleConnections()
				if dialed != 1 {
					log.Fatal("not one connection, but ", dialed)
				}
			}(connection, port)
		}
	}
	all.Wait()
}

func main() {
	if os.Args[1] == "serve" {
		serve(os.Args[2], os.Args[3], os.Args[4])
	}
	for {
		if _, err := os.Stat(os.Args[2]); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	connections, _ := strconv.Atoi(os.Args[4])
	requests, _ := strconv.Atoi(os.Args[5])
	ask(os.Args[3], connections, requests, os.Args[6:])
}
