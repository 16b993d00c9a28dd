// gohttp client URL [h1]: 4 requests on one connection. gohttp server ADDR CERT KEY: answers with the path.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if os.Args[1] == "server" {
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "# echo %s %s\n", r.URL.Path, body)
		})
		panic(http.ListenAndServeTLS(os.Args[2], os.Args[3], os.Args[4], nil))
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: len(os.Args) < 4}
	c := &http.Client{Transport: t, Timeout: 10 * time.Second}
	for i := 1; i <= 4; i++ {
		r, err := c.Post(fmt.Sprintf("%s/%d", os.Args[2], i), "text/plain", strings.NewReader("hello from go"))
		if err != nil {
			panic(err)
		}
		io.Copy(os.Stdout, r.Body)
		r.Body.Close()
		time.Sleep(400 * time.Millisecond)
	}
}
