// Goroutines on several threads, timers, a local HTTP server; prints one line.
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"
)

func main() {
	var all sync.WaitGroup
	var lock sync.Mutex
	sum := 0
	for i := 0; i < 50; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			time.Sleep(time.Millisecond)
			lock.Lock()
			sum += i
			lock.Unlock()
		}(i)
	}
	all.Wait()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.URL.Path) }))
	answer, err := http.Get(server.URL + "/x")
	if err != nil {
		panic(err)
	}
	text, _ := io.ReadAll(answer.Body)
	fmt.Println(sum, string(text))
	os.Exit(3)
}
