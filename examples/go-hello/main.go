// A Go program for `cargo unik pack`: CGO_ENABLED=0 go build -o go-hello main.go
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"
)

func main() {
	fmt.Println("hello from Go,", len(os.Args)-1, "arguments:", strings.Join(os.Args[1:], " "))
	results := make(chan int)
	var wait sync.WaitGroup
	for n := 0; n < 1000; n++ {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			runtime.Gosched()
			results <- n * n
		}(n)
	}
	go func() { wait.Wait(); close(results) }()
	sum := 0
	for n := range results {
		sum += n
	}
	fmt.Println("goroutines added", sum)

	hoard := map[int][]byte{}
	for n := 0; n < 2000; n++ {
		hoard[n%100] = make([]byte, 10000)
	}
	runtime.GC()
	fmt.Println("collected", len(hoard))

	start := time.Now()
	time.Sleep(3 * time.Millisecond)
	select {
	case <-time.After(2 * time.Millisecond):
	}
	fmt.Println("slept", time.Since(start) >= 5*time.Millisecond)

	path := os.TempDir() + "/go-hello.txt"
	err := os.WriteFile(path, []byte("b\na\n"), 0o600)
	text, _ := os.ReadFile(path)
	lines := strings.Fields(string(text))
	sort.Strings(lines)
	fmt.Println("file", err, lines, os.Remove(path))
	_, err = os.Open("/no/such/file")
	fmt.Println(err)
	defer func() {
		fmt.Println("recovered:", recover())
		os.Exit(5)
	}()
	var nothing *int
	fmt.Println(*nothing)
}
