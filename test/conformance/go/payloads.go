package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "taskmesh.example/conformance/gen/taskmesh/v1"
)

const (
	inlineMax  = 128 << 10
	chunkBytes = 1 << 20
	payloadMax = 64 << 20
)

// payloads moves messages in and out of their envelopes (10).
type payloads struct {
	client    pb.PayloadServiceClient
	namespace string
}

func newPayloads(conn *grpc.ClientConn, namespace string) *payloads {
	return &payloads{client: pb.NewPayloadServiceClient(conn), namespace: namespace}
}

func (p *payloads) read(ctx context.Context, payload *pb.Payload) ([]byte, error) {
	data := payload.GetInline()
	if reference := payload.GetReference(); reference != "" {
		err := retried(ctx, func(ctx context.Context) (err error) {
			data, err = p.fetch(ctx, reference)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if want := payload.GetSha256(); len(want) > 0 {
		if got := sha256.Sum256(data); !bytes.Equal(got[:], want) {
			return nil, failure("PAYLOAD_UNREADABLE", "the bytes of the input don't match their hash", true)
		}
	}
	return data, nil
}

func (p *payloads) fetch(ctx context.Context, reference string) ([]byte, error) {
	stream, err := p.client.GetPayload(ctx, &pb.GetPayloadRequest{Namespace: p.namespace, Reference: reference})
	if err != nil {
		return nil, err
	}
	var data []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		data = append(data, part.Chunk...)
	}
}

func (p *payloads) write(ctx context.Context, data []byte) (*pb.Payload, error) {
	if len(data) <= inlineMax {
		digest := sha256.Sum256(data)
		return &pb.Payload{SizeBytes: uint64(len(data)), Sha256: digest[:], Data: &pb.Payload_Inline{Inline: data}}, nil
	}
	if len(data) > payloadMax {
		return nil, failure("PAYLOAD_TOO_LARGE", fmt.Sprintf("the output has %d bytes; at most 64 MiB", len(data)), false)
	}
	var stored *pb.Payload
	err := retried(ctx, func(ctx context.Context) (err error) {
		stored, err = p.put(ctx, data)
		return err
	})
	return stored, err
}

func (p *payloads) put(ctx context.Context, data []byte) (*pb.Payload, error) {
	stream, err := p.client.PutPayload(ctx)
	if err != nil {
		return nil, err
	}
	request := &pb.PutPayloadRequest{Namespace: p.namespace}
	for len(data) > 0 {
		size := min(len(data), chunkBytes)
		request.Chunk, data = data[:size], data[size:]
		if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		} else if err != nil {
			break // CloseAndRecv says why.
		}
		request = new(pb.PutPayloadRequest)
	}
	response, err := stream.CloseAndRecv()
	return response.GetPayload(), err
}

// retried repeats a call for about half a minute (10.4).
func retried(ctx context.Context, call func(context.Context) error) error {
	for tries := 1; ; tries++ {
		limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
		err := call(limited)
		cancel()
		if err == nil {
			return nil
		}
		code := status.Code(err)
		if ctx.Err() != nil || tries == 8 || code == codes.NotFound || code == codes.DataLoss {
			return failure("PAYLOAD_UNREADABLE", "a payload can't be moved: "+err.Error(), true)
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff(tries)):
		}
	}
}
