// An HTTP server on net/http that asks another one for each request, in many ways. In: its own port, the port of the other.
// GET /MODE/in/N asks /MODE/out/N, or /MODE/out/N/0 to /2 for several: which request was made for which can be told by the path.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

var other string

// Under load every connection of the pool is kept; `few` has five connections, which requests wait for.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
var few = &http.Client{Transport: &http.Transport{MaxConnsPerHost: 5, MaxIdleConnsPerHost: 5}}

type job struct {
	context context.Context
	path    string
	done    chan struct{}
}

var jobs = make(chan job)

func ask(ctx context.Context, client *http.Client, path string) {
	request, err := http.NewRequestWithContext(ctx, "GET", "http://127.0.0.1:"+other+path, nil)
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
	other = os.Args[2]
	for n := 0; n < 32; n++ {
		go work()
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		mode, _, _ := strings.Cut(r.URL.Path[1:], "/")
		if way := modes[mode]; way != nil && strings.Contains(r.URL.Path, "/in/") {
			way(r.Context(), strings.Replace(r.URL.Path, "/in/", "/out/", 1))
		}
		fmt.Fprint(w, "hello")
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
