package main

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "taskmesh.example/conformance/gen/taskmesh/v1"
)

// silentMax is how many intervals without a reply end a stream (4).
const silentMax = 3

// session keeps the worker registered (3, 4, 12): one Connect stream after another, with the same session id while the mesh knows it.
type session struct {
	dial        func() *grpc.ClientConn
	namespace   string
	slots       int
	descriptors []byte
	work        *work

	mu      sync.Mutex
	id      string
	number  uint64
	stream  grpc.BidiStreamingClient[pb.ConnectRequest, pb.ConnectResponse]
	leaving bool
}

// run serves until the worker leaves. It fails with what no retry mends, of a first registration.
func (s *session) run() error {
	for tries := 1; ; tries++ {
		held, err := s.serve()
		s.mu.Lock()
		left, registered := s.leaving, s.id != ""
		if status.Code(err) == codes.NotFound {
			s.id = ""
		}
		s.mu.Unlock()
		if left {
			return nil
		}
		if !registered && hopeless(status.Code(err)) {
			return err
		}
		log.Printf("the session broke: %v", err)
		if held {
			tries = 1
		}
		if !errors.Is(err, errDrained) {
			time.Sleep(backoff(tries))
		}
	}
}

var errDrained = errors.New("the coordinator is draining")

func hopeless(code codes.Code) bool {
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	return false
}

// serve is one stream, from Register to its end; held says whether the registration held. Leaving it cancels the stream, which never ends
// the session.
func (s *session) serve() (held bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	conn := s.dial()
	defer conn.Close()
	registry := pb.NewRegistryServiceClient(conn)
	stream, err := registry.Connect(ctx)
	if err != nil {
		return false, err
	}
	if err := stream.Send(s.registration()); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	first, err := stream.Recv()
	if err != nil {
		return false, err
	}
	registered := first.GetRegistered()
	s.mu.Lock()
	s.id, s.stream = registered.GetSessionId(), stream
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.stream = nil
		s.mu.Unlock()
	}()
	s.work.use(registered.GetSessionId(), registry)
	answered := make(chan struct{}, 1)
	go s.keepBeating(ctx, cancel, registered.GetBeatInterval().AsDuration(), answered)
	for {
		response, err := stream.Recv()
		if err != nil {
			return true, err
		}
		reply := response.GetBeatReply()
		if reply == nil {
			continue
		}
		select {
		case answered <- struct{}{}:
		default:
		}
		s.work.heard(reply)
		if reply.Drain {
			return true, errDrained
		}
	}
}

func (s *session) keepBeating(ctx context.Context, giveUp func(), interval time.Duration, answered <-chan struct{}) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	silent := 0
	s.beat()
	for {
		select {
		case <-ctx.Done():
			return
		case <-answered:
			silent = 0
		case <-ticker.C:
			if silent++; silent > silentMax {
				giveUp()
				return
			}
			s.beat()
		}
	}
}

func (s *session) registration() *pb.ConnectRequest {
	host, _ := os.Hostname()
	names := make([]string, 0, len(methods))
	for name := range methods {
		names = append(names, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &pb.ConnectRequest{Message: &pb.ConnectRequest_Register{Register: &pb.Register{
		Namespace:     s.namespace,
		SessionId:     s.id,
		Host:          host,
		Pid:           uint32(os.Getpid()),
		Sdk:           "conformance-go/1",
		DescriptorSet: s.descriptors,
		Queues:        []*pb.QueueOffer{{TaskQueue: service, Methods: names, Slots: uint32(s.slots)}},
		Transports:    []pb.TransportKind{pb.TransportKind_TRANSPORT_KIND_RELAY},
	}}}
}

// beat sends a beat if there is a session.
func (s *session) beat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream == nil {
		return
	}
	s.number++
	beat := s.work.beat()
	beat.Number = s.number
	// A stream that broke says so to its reader.
	_ = s.stream.Send(&pb.ConnectRequest{Message: &pb.ConnectRequest_Beat{Beat: beat}})
}

// leave half-closes the stream, which ends the session (11.3).
func (s *session) leave() {
	s.beat()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	if s.stream != nil {
		_ = s.stream.CloseSend()
	}
}
