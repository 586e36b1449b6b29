package main

import (
	"bytes"
	"crypto/sha256"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	contract "taskmesh.example/conformance/gen/conformance/v1"
	pb "taskmesh.example/conformance/gen/taskmesh/v1"
)

const service = "conformance.v1.ConformanceActions"

// failed is an outcome of a handler that is no result.
type failed struct{ *pb.Failure }

func (f failed) Error() string { return f.Reason + ": " + f.Message }

func failure(reason, message string, retryable bool) error {
	return failed{&pb.Failure{Reason: reason, Message: message, Retryable: retryable}}
}

// handler runs one attempt: input bytes in, a message out.
type handler func(a *attempt, input []byte) (proto.Message, error)

// action makes a handler of a typed function.
func action[In any, P interface {
	*In
	proto.Message
}](run func(*attempt, P) (proto.Message, error)) handler {
	return func(a *attempt, input []byte) (proto.Message, error) {
		request := P(new(In))
		if err := proto.Unmarshal(input, request); err != nil {
			return nil, failure("INPUT_INVALID", err.Error(), false)
		}
		return run(a, request)
	}
}

var methods = map[string]handler{
	service + "/Echo":    action(echo),
	service + "/Hold":    action(hold),
	service + "/Fail":    action(fail),
	service + "/Resume":  action(resume),
	service + "/Measure": action(measure),
	service + "/Once":    action(once),
}

var executions = struct {
	sync.Mutex
	times map[string]uint32
}{times: map[string]uint32{}}

func count(key string) uint32 {
	executions.Lock()
	defer executions.Unlock()
	executions.times[key]++
	return executions.times[key]
}

func waitFor(a *attempt, gate string) error {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		if _, err := os.Stat(gate); err == nil {
			return nil
		}
		select {
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-look.C:
		}
	}
}

func echo(_ *attempt, in *contract.EchoRequest) (proto.Message, error) {
	return &contract.EchoResponse{Text: in.Text, Data: in.Data, Executions: count("echo " + in.Text)}, nil
}

func hold(a *attempt, in *contract.HoldRequest) (proto.Message, error) {
	times := count("hold " + in.Gate)
	if err := waitFor(a, in.Gate); err != nil {
		return nil, err
	}
	return &contract.HoldResponse{Attempt: a.start.Attempt, Executions: times}, nil
}

func fail(a *attempt, in *contract.FailRequest) (proto.Message, error) {
	if in.UntilAttempt == 0 || a.start.Attempt < in.UntilAttempt {
		return nil, failure(in.Reason, in.Message, in.Retryable)
	}
	return &contract.FailResponse{Attempt: a.start.Attempt}, nil
}

func resume(a *attempt, in *contract.ResumeRequest) (proto.Message, error) {
	before := new(contract.Position)
	if a.load(before) {
		return &contract.ResumeResponse{Position: before.Position, Attempt: a.start.Attempt}, nil
	}
	if err := a.report(50, "half way", &contract.Position{Position: in.Position}); err != nil {
		return nil, err
	}
	if err := waitFor(a, in.Gate); err != nil {
		return nil, err
	}
	return nil, failure("INTERRUPTED", "the next attempt goes on", true)
}

func measure(_ *attempt, in *contract.MeasureRequest) (proto.Message, error) {
	digest := sha256.Sum256(in.Data)
	filled := bytes.Repeat([]byte{0x5a}, int(in.Size))
	return &contract.MeasureResponse{Length: uint64(len(in.Data)), Sha256: digest[:], Data: filled}, nil
}

func once(a *attempt, in *contract.OnceRequest) (proto.Message, error) {
	return &contract.OnceResponse{Text: in.Text, Attempt: a.start.Attempt}, nil
}
