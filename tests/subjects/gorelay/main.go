// An HTTP server on net/http that asks another one for each request, in many ways. In: its own port, the port of the other.
//
//	gorelay PORT OTHER                           /MODE/in/N asks /MODE/out/N, or /MODE/out/N/0 to /2 for several
//	gorelay PORT OTHER FROM TO                   the same with these words, and by https
//	gorelay PORT OTHER FROM TO CERTIFICATE KEY   and is asked by https, HTTP/1.1 alone
//
// Which request was made for which can be told by the path.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

var other, from, to = "http://127.0.0.1:", "/in/", "/out/"

// Under load every connection of the pool is kept; `few` has five connections, which requests wait for.
var client = &http.Client{Transport: transport(0, 256)}
var few = &http.Client{Transport: transport(5, 5)}

// Offers HTTP/2 over TLS, as a program's usual client does; no server here takes it.
func transport(most, idle int) *http.Transport {
	nobody := &tls.Config{InsecureSkipVerify: true}
	return &http.Transport{MaxConnsPerHost: most, MaxIdleConnsPerHost: idle, TLSClientConfig: nobody, ForceAttemptHTTP2: true}
}

type job struct {
	context context.Context
	path    string
	done    chan struct{}
}

var jobs = make(chan job)

func ask(ctx context.Context, client *http.Client, path string) {
	request, err := http.NewRequestWithContext(ctx, "GET", other+path, nil)
	if err != nil {
		log.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		log.Print(err)
		return
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
}

func work() {
	for job := range jobs {
		ask(job.context, client, job.path)
		close(job.done)
	}
}

func give(ctx context.Context, path string) {
	job := job{ctx, path, make(chan struct{})}
	jobs <- job
	<-job.done
}

var modes = map[string]func(ctx context.Context, path string){
	"now": func(_ context.Context, path string) { ask(context.Background(), client, path) },
	"later": func(_ context.Context, path string) {
		time.Sleep(3 * time.Millisecond)
		ask(context.Background(), client, path)
	},
	"child": func(_ context.Context, path string) {
		done := make(chan struct{})
		go func() { ask(context.Background(), client, path); close(done) }()
		<-done
	},
	"three": func(_ context.Context, path string) {
		var all sync.WaitGroup
		for n := 0; n < 3; n++ {
			n := n
			all.Add(1)
			go func() {
				defer all.Done()
				time.Sleep(time.Duration(n) * time.Millisecond)
				ask(context.Background(), client, fmt.Sprint(path, "/", n))
			}()
		}
		all.Wait()
	},
	"grandchild": func(_ context.Context, path string) {
		done := make(chan struct{})
		go func() { go func() { ask(context.Background(), client, path); close(done) }() }()
		<-done
	},
	"after": func(_ context.Context, path string) {
		go func() { time.Sleep(5 * time.Millisecond); ask(context.Background(), client, path) }()
	},
	"queued": func(_ context.Context, path string) { ask(context.Background(), few, path) },
	"pool":   func(_ context.Context, path string) { give(context.Background(), path) },
	"context": func(ctx context.Context, path string) {
		c, stop := context.WithTimeout(ctx, time.Minute)
		give(c, path)
		stop()
	},
}

func main() {
	if len(os.Args) > 3 {
		other, from, to = "https://127.0.0.1:", "/"+os.Args[3]+"/", "/"+os.Args[4]+"/"
	}
	other += os.Args[2]
	for n := 0; n < 32; n++ {
		go work()
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		mode, _, _ := strings.Cut(r.URL.Path[1:], "/")
		if way := modes[mode]; way != nil && strings.Contains(r.URL.Path, from) {
			way(r.Context(), strings.Replace(r.URL.Path, from, to, 1))
		}
		fmt.Fprint(w, "hello")
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	if len(os.Args) > 5 {
		log.Fatal(server.ListenAndServeTLS(os.Args[5], os.Args[6]))
	}
	log.Fatal(server.ListenAndServe())
}
