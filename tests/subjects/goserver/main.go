// An HTTP server on net/http. In: the port as its argument; with a certificate and its key behind it, over TLS.
// GET /call?port=N asks 127.0.0.1:N/hello itself before it answers; every other path answers "hello".
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

// Under load every connection of the pool is kept, as a service with traffic would set it.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func call(w http.ResponseWriter, r *http.Request) {
	answer, err := client.Get("http://127.0.0.1:" + r.URL.Query().Get("port") + "/hello")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body)
	fmt.Fprint(w, answer.StatusCode)
}

func main() {
	http.HandleFunc("/call", call)
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	address := "127.0.0.1:" + os.Args[1]
	if len(os.Args) > 3 {
		log.Fatal(http.ListenAndServeTLS(address, os.Args[2], os.Args[3], nil))
	}
	log.Fatal(http.ListenAndServe(address, nil))
}
