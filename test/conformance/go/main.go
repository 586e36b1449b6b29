// A worker of plain generated stubs (grpc-go): the whole worker protocol without an SDK.
//
// session.go keeps the worker registered, work.go carries its attempts over the relay, payloads.go moves large messages, actions.go
// is what the worker is for. Section numbers are those of docs/worker-protocol.md.
package main

import (
	"context"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	slots, err := strconv.Atoi(os.Getenv("TASKMESH_SLOTS"))
	if err != nil {
		log.Fatalf("TASKMESH_SLOTS: %v", err)
	}
	descriptors, err := os.ReadFile(os.Getenv("CONFORMANCE_DESCRIPTORS"))
	if err != nil {
		log.Fatalf("CONFORMANCE_DESCRIPTORS: %v", err)
	}
	address, namespace := os.Getenv("TASKMESH_ADDRESS"), os.Getenv("TASKMESH_NAMESPACE")

	work := newWork(dial(address), dial(address), namespace, slots)
	session := &session{dial: func() *grpc.ClientConn { return dial(address) }, namespace: namespace,
		slots: slots, descriptors: descriptors, work: work}
	work.onFirstNonce = session.beat

	signals, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-signals.Done()
		work.drain()
		session.beat()
		work.finish()
		session.leave()
	}()
	if err := session.run(); err != nil {
		log.Fatal(err)
	}
}

// dial makes a connection of its own (1).
func dial(address string) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}))
	if err != nil {
		log.Fatal(err)
	}
	return conn
}

// backoff is a random pause whose bound doubles up to 5 s (2.5).
func backoff(tries int) time.Duration {
	bound := min(5*time.Second, 100*time.Millisecond<<min(tries, 10))
	return rand.N(bound)
}
