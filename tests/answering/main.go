// Answers with who it is, the query of the request, and the body of the request: answering NAME PORT. Go's net/http.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	name := os.Args[1]
	listener, err := net.Listen("tcp", ":"+os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// All of it before the answer begins: not every client reads while it writes.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			log.Printf("%s: body: %v", r.URL.RawQuery, err)
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Answer", name+" "+r.URL.RawQuery)
		if r.Header.Get("X-Framing") != "chunked" {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		if _, err := io.Copy(w, bytes.NewReader(body)); err != nil {
			log.Printf("%s: answer: %v", r.URL.RawQuery, err)
		}
	})))
}
