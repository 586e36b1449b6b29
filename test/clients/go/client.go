// A stock Go client of a service that happens to be durable. Usage: client ADDRESS KEY
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"acme.example/stock/stockpb"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type method func(context.Context, *stockpb.Text, ...grpc.CallOption) (*stockpb.Counted, error)

// A call that is over.
type called struct {
	reply  *stockpb.Counted
	err    error
	header metadata.MD
}

func call(do method, text string, timeout time.Duration, headers ...string) called {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var made called
	ctx = metadata.AppendToOutgoingContext(ctx, headers...)
	made.reply, made.err = do(ctx, &stockpb.Text{Text: text}, grpc.Header(&made.header))
	return made
}

func (c called) runID() string {
	if ids := c.header.Get("taskmesh-run-id"); len(ids) > 0 {
		return ids[0]
	}
	return ""
}

func (c called) code() string { return code.Code(status.Code(c.err)).String() }

func (c called) answer() map[string]any {
	if c.err != nil {
		log.Fatal(c.err)
	}
	large := strconv.FormatInt(c.reply.GetLarge(), 10)
	return map[string]any{"letters": c.reply.GetLetters(), "large": large, "runId": c.runID()}
}

func (c called) refusal() map[string]any {
	seen := map[string]any{"code": c.code()}
	for _, detail := range status.Convert(c.err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			seen["reason"] = detail.GetReason()
		case *stockpb.Refusal:
			seen["why"] = detail.GetWhy()
			seen["number"] = strconv.FormatInt(detail.GetNumber(), 10)
		}
	}
	return seen
}

func spell(stub stockpb.StockActionsClient, text string) map[string]any {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := stub.Spell(ctx, &stockpb.Text{Text: text})
	letters := []string{}
	for err == nil {
		var letter *stockpb.Text
		if letter, err = stream.Recv(); err == nil {
			letters = append(letters, letter.GetText())
		}
	}
	if err != io.EOF {
		log.Fatal(err)
	}
	header, _ := stream.Header()
	return map[string]any{"letters": letters, "runId": header.Get("taskmesh-run-id")[0]}
}

func main() {
	address, key := os.Args[1], os.Args[2]
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	stub := stockpb.NewStockActionsClient(connection)
	keyed := func(text string) called {
		return call(stub.Count, text, time.Minute, "taskmesh-idempotency-key", key)
	}
	first := call(stub.Count, "hello", time.Minute)
	held := call(stub.Hold, "hold", 5*time.Second)
	report := map[string]any{
		"unary":      first.answer(),
		"sameKey":    []string{keyed("again").runID(), keyed("again").runID()},
		"otherInput": keyed("other").code(),
		"deadline":   map[string]any{"code": held.code(), "runId": held.runID()},
		"stream":     spell(stub, "hop"),
		"refused":    call(stub.Refuse, "refuse", time.Minute).refusal(),
		"async":      call(stub.Count, "later", time.Minute, "taskmesh-async", "true").answer(),
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		log.Fatal(err)
	}
}
