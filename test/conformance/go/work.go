package main

import (
	"context"
	"errors"
	"log"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "taskmesh.example/conformance/gen/taskmesh/v1"
)

const (
	startMax      = 512 << 10
	drainTime     = 30 * time.Second
	completedKept = 5 * time.Minute
	claimFor      = time.Minute
)

// delivery is where a start came from: acks and credits name it, on the stream that brought it.
type delivery struct {
	stream int
	number uint64
	bytes  uint64
}

// attempt is one attempt, from its start to the ack of it; also what its handler sees.
type attempt struct {
	ctx   context.Context
	stop  context.CancelFunc
	start *pb.StartStep
	began time.Time
	// slot is the delivery that took the slot, acks the one to ack: nil when there is none, or it was acked.
	slot delivery
	acks *delivery

	mu         sync.Mutex
	reportedAt time.Time
	progress   *pb.Progress
	checkpoint *anypb.Any

	// Guarded by the lock of work.
	why        string
	claiming   bool
	bound      bool
	completion *pb.CompleteStep
	storedAt   time.Time
}

// report tells how far the handler is, and what the next attempt is to go on from (9).
func (a *attempt) report(percent float64, message string, checkpoint proto.Message) error {
	packed, err := anypb.New(checkpoint)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.progress = &pb.Progress{Percent: percent, Message: message}
	a.checkpoint, a.reportedAt = packed, time.Now()
	return nil
}

// load reads the checkpoint of an earlier attempt (9.3).
func (a *attempt) load(into proto.Message) bool {
	inline := a.start.GetCheckpoint().GetInline()
	if inline == nil {
		return false
	}
	packed := new(anypb.Any)
	return proto.Unmarshal(inline, packed) == nil && packed.UnmarshalTo(into) == nil
}

// work is the relay of a session and the attempts in hand (5 to 8). One lock guards all of it; nothing slow happens under it.
type work struct {
	relay        pb.RelayServiceClient
	payloads     *payloads
	namespace    string
	slots        int
	onFirstNonce func()

	mu         sync.Mutex
	changed    *sync.Cond
	sessionID  string
	registry   pb.RegistryServiceClient
	nonce      string
	stream     grpc.BidiStreamingClient[pb.RelayRequest, pb.RelayResponse]
	streamNo   int
	cancel     context.CancelFunc
	attempts   map[string]*attempt
	completed  map[string]*attempt
	numbers    map[uint64]*attempt
	nextNumber uint64
	taken      int
	draining   bool
	leaving    bool
	ended      chan struct{}
}

func newWork(relay, bulk *grpc.ClientConn, namespace string, slots int) *work {
	w := &work{relay: pb.NewRelayServiceClient(relay), payloads: newPayloads(bulk, namespace), namespace: namespace,
		slots: slots, attempts: map[string]*attempt{}, completed: map[string]*attempt{}, ended: make(chan struct{})}
	w.changed = sync.NewCond(&w.mu)
	return w
}

// use serves this session from now on.
func (w *work) use(sessionID string, registry pb.RegistryServiceClient) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, changed := w.sessionID == "", w.sessionID != sessionID
	w.sessionID, w.registry = sessionID, registry
	if first {
		go w.keepOpen()
	} else if changed && w.cancel != nil {
		w.cancel()
	}
}

func (w *work) keepOpen() {
	defer close(w.ended)
	for tries := 1; ; tries++ {
		served, err := w.carry()
		w.mu.Lock()
		w.stream = nil
		leaving := w.leaving
		w.mu.Unlock()
		if leaving {
			return
		}
		log.Printf("the relay broke: %v", err)
		if served {
			tries = 1
		}
		time.Sleep(backoff(tries))
	}
}

// carry is one stream, from RelayOpen to its end; served says whether anything came over it.
func (w *work) carry() (served bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := w.relay.Relay(ctx)
	if err != nil {
		return false, err
	}
	w.opened(stream, cancel)
	for {
		response, err := stream.Recv()
		if err != nil {
			return served, err
		}
		served = true
		w.onResponse(response)
	}
}

// opened says on a new stream who the worker is, what it can take, and what is not confirmed (12).
func (w *work) opened(stream grpc.BidiStreamingClient[pb.RelayRequest, pb.RelayResponse], cancel context.CancelFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stream, w.cancel, w.nonce, w.numbers = stream, cancel, "", map[uint64]*attempt{}
	w.streamNo++
	w.send(&pb.RelayRequest{Message: &pb.RelayRequest_Open{
		Open: &pb.RelayOpen{Namespace: w.namespace, SessionId: w.sessionID}}})
	if w.draining {
		w.sendDrain()
	} else {
		w.sendCredit(&pb.RelayCredit{Slots: uint32(w.slots - w.taken), Bytes: uint64(w.slots * startMax)})
	}
	for _, a := range w.attempts {
		a.acks = nil
		if a.completion != nil {
			w.report(a)
		}
	}
}

// send writes to the present stream; one that broke says so to its reader, and the next one starts afresh.
func (w *work) send(request *pb.RelayRequest) {
	if w.stream != nil {
		_ = w.stream.Send(request)
	}
}

func (w *work) sendDrain() {
	w.send(&pb.RelayRequest{Message: &pb.RelayRequest_Drain{Drain: &pb.RelayDrain{}}})
}

func (w *work) sendCredit(credit *pb.RelayCredit) {
	credit.TaskQueue = service
	w.send(&pb.RelayRequest{Message: &pb.RelayRequest_Credit{Credit: credit}})
}

func (w *work) onResponse(response *pb.RelayResponse) {
	w.mu.Lock()
	first := false
	switch message := response.Message.(type) {
	case *pb.RelayResponse_Starts:
		for _, relayed := range message.Starts.Starts {
			w.onStart(relayed)
		}
	case *pb.RelayResponse_Stored:
		w.onStored(message.Stored)
	case *pb.RelayResponse_Probe:
		first = w.nonce == ""
		w.nonce = message.Probe.Nonce
	}
	w.mu.Unlock()
	if first {
		w.onFirstNonce()
	}
}

func (w *work) onStart(relayed *pb.RelayStart) {
	if relayed.TaskQueue != service {
		return
	}
	start := relayed.GetStart()
	came := delivery{stream: w.streamNo, number: relayed.Delivery, bytes: uint64(proto.Size(start))}
	if start.GetRunId() == "" || start.GetLease() == "" {
		w.credit(came)
		return
	}
	if known := w.attempts[start.Lease]; known != nil { // 7.1
		known.acks = &came
		if known.bound {
			w.ack(known)
		}
		w.credit(came)
		return
	}
	if done := w.completed[start.Lease]; done != nil { // 7.2
		done.acks = &came
		w.credit(came)
		w.report(done)
		return
	}
	w.taken++
	now := time.Now()
	a := &attempt{start: start, began: now, reportedAt: now, slot: came, acks: &came}
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.claiming = relayed.Redelivered || start.Exclusive
	w.attempts[start.Lease] = a
	if a.claiming {
		go w.claim(a)
	} else {
		go w.run(a)
	}
}

// claim asks for a start that was delivered before (7.3).
func (w *work) claim(a *attempt) {
	given := a.start
	for tries, until := 1, time.Now().Add(claimFor); time.Now().Before(until); tries++ {
		answer, err := w.claimOnce(given)
		if err != nil {
			log.Printf("a claim is tried again: %v", err)
			time.Sleep(backoff(tries))
			continue
		}
		w.mu.Lock()
		start := answer.GetStart()
		if start == nil {
			w.ack(a)
			w.mu.Unlock()
			break
		}
		if start.Input == nil {
			start.Input = given.Input
		}
		delete(w.attempts, given.Lease)
		a.start, a.claiming = start, false
		w.attempts[start.Lease] = a
		w.mu.Unlock()
		w.run(a)
		return
	}
	w.letGo(a)
}

func (w *work) claimOnce(start *pb.StartStep) (*pb.ClaimAttemptResponse, error) {
	w.mu.Lock()
	registry, sessionID := w.registry, w.sessionID
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return registry.ClaimAttempt(ctx, &pb.ClaimAttemptRequest{Namespace: w.namespace, SessionId: sessionID,
		RunId: start.RunId, StepId: start.StepId, Item: start.Item, Attempt: start.Attempt, Lease: start.Lease})
}

// run runs the handler and reports how it ended (6).
func (w *work) run(a *attempt) {
	defer a.stop()
	began := time.Now()
	limit := w.limit(a)
	output, err := w.handle(a)
	if limit != nil {
		limit.Stop()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := a.why == "LEASE_LOST" || (a.why == "DRAINING" && err != nil)
	if !lost {
		a.completion = completionOf(a, output, err)
		a.completion.SessionId = w.sessionID
		a.completion.ExecutionMs = uint32(time.Since(began).Milliseconds())
		w.report(a)
	}
	w.freeSlot(a)
	if lost {
		w.forget(a)
	}
}

func (w *work) handle(a *attempt) (*pb.Payload, error) {
	handler := methods[a.start.Method]
	if handler == nil {
		return nil, failure("METHOD_UNKNOWN", "this worker does not implement "+a.start.Method, true)
	}
	input, err := w.payloads.read(a.ctx, a.start.Input)
	if err != nil {
		return nil, err
	}
	message, err := handler(a, input)
	if err != nil {
		return nil, err
	}
	output, err := proto.Marshal(message)
	if err != nil {
		return nil, failure("OUTPUT_INVALID", err.Error(), false)
	}
	return w.payloads.write(a.ctx, output)
}

// completionOf says how an attempt ended; the reason of a stop goes before what the handler made of it.
func completionOf(a *attempt, output *pb.Payload, err error) *pb.CompleteStep {
	start := a.start
	completion := &pb.CompleteStep{RunId: start.RunId, StepId: start.StepId, Item: start.Item,
		Attempt: start.Attempt, Lease: start.Lease}
	var told failed
	switch {
	case err == nil:
		completion.Outcome = &pb.CompleteStep_Output{Output: output}
		return completion
	case a.why == "CANCELLED":
		completion.Outcome = &pb.CompleteStep_Cancelled{Cancelled: &pb.Cancelled{Message: err.Error()}}
		return completion
	case a.why == "START_TO_CLOSE_TIMEOUT" || a.why == "RUN_EXPIRED":
		retryable := a.why == "START_TO_CLOSE_TIMEOUT"
		told = failed{&pb.Failure{Reason: a.why, Message: "the attempt's time is over", Retryable: retryable}}
	case !errors.As(err, &told):
		told = failed{&pb.Failure{Reason: "HANDLER_ERROR", Message: err.Error(), Retryable: true}}
	}
	completion.Outcome = &pb.CompleteStep_Failure{Failure: told.Failure}
	a.mu.Lock()
	defer a.mu.Unlock()
	completion.Checkpoint = a.checkpoint
	return completion
}

// limit stops the attempt when its own time or the run's is over (6.3).
func (w *work) limit(a *attempt) *time.Timer {
	own, run := uint64(a.start.StartToCloseMs), a.start.RunRemainingMs
	ms, why := own, "START_TO_CLOSE_TIMEOUT"
	if own == 0 || (run > 0 && run < own) {
		ms, why = run, "RUN_EXPIRED"
	}
	if ms == 0 {
		return nil
	}
	return time.AfterFunc(time.Duration(ms)*time.Millisecond, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		a.halt(why)
	})
}

// halt asks the handler to stop; the first reason counts.
func (a *attempt) halt(why string) {
	if a.why == "" {
		a.why = why
	}
	a.stop()
}

// heard does what the answer to a beat says (4).
func (w *work) heard(reply *pb.BeatReply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, lease := range reply.BoundLeases {
		if a := w.attempts[lease]; a != nil {
			a.bound = true
			w.ack(a)
		}
	}
	for _, cancel := range reply.Cancels {
		a := w.attempts[cancel.Lease]
		switch {
		case a == nil:
		case cancel.Reason == pb.CancelReason_CANCEL_REASON_LEASE_LOST:
			w.ack(a)
			a.why = ""
			a.halt("LEASE_LOST")
			if a.completion != nil {
				w.forget(a)
			}
		default:
			a.halt("CANCELLED")
		}
	}
	if reply.Republish {
		for _, a := range w.completed {
			w.report(a)
		}
	}
	if reply.ReopenTransport && w.cancel != nil {
		w.cancel()
	}
}

// beat is the next beat, without its number.
func (w *work) beat() *pb.Beat {
	w.mu.Lock()
	defer w.mu.Unlock()
	beat := &pb.Beat{Nonce: w.nonce, Draining: w.draining, FreeSlots: []*pb.FreeSlots{
		{TaskQueue: service, Free: uint32(w.slots - w.taken), Slots: uint32(w.slots)}}}
	for _, a := range w.attempts {
		if a.claiming || a.why == "LEASE_LOST" {
			continue
		}
		beat.Attempts = append(beat.Attempts, a.listed())
	}
	return beat
}

func (a *attempt) listed() *pb.AttemptBeat {
	a.mu.Lock()
	defer a.mu.Unlock()
	start := a.start
	return &pb.AttemptBeat{RunId: start.RunId, StepId: start.StepId, Item: start.Item, Attempt: start.Attempt,
		Lease: start.Lease, StartedAt: timestamppb.New(a.began), Progress: a.progress, Checkpoint: a.checkpoint,
		SinceReportMs: uint32(time.Since(a.reportedAt).Milliseconds())}
}

func (w *work) report(a *attempt) {
	w.nextNumber++
	w.numbers[w.nextNumber] = a
	w.send(&pb.RelayRequest{Message: &pb.RelayRequest_Completions{Completions: &pb.RelayCompletions{
		Number: w.nextNumber, ReportTo: a.start.ReportTo,
		Batch: &pb.CompletionBatch{Completions: []*pb.CompleteStep{a.completion}}}}})
}

func (w *work) onStored(stored *pb.RelayStored) {
	a := w.numbers[stored.Number]
	if a == nil {
		return
	}
	delete(w.numbers, stored.Number)
	if stored.Error != "" {
		log.Printf("a completion is sent again: %s", stored.Error)
		stream := w.streamNo
		time.AfterFunc(backoff(1), func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.streamNo == stream {
				w.report(a)
			}
		})
		return
	}
	w.ack(a)
	w.forget(a)
	a.storedAt = time.Now()
	w.completed[a.start.Lease] = a
	for lease, old := range w.completed {
		if time.Since(old.storedAt) > completedKept {
			delete(w.completed, lease)
		}
	}
}

func (w *work) ack(a *attempt) {
	if a.acks == nil || a.acks.stream != w.streamNo {
		return
	}
	w.send(&pb.RelayRequest{Message: &pb.RelayRequest_Ack{Ack: &pb.RelayAck{Deliveries: []uint64{a.acks.number}}}})
	a.acks = nil
}

// credit allows another start in place of one (5.3).
func (w *work) credit(of delivery) {
	switch {
	case w.draining:
	case of.stream == w.streamNo:
		w.sendCredit(&pb.RelayCredit{Slots: 1, Bytes: of.bytes, Deliveries: []uint64{of.number}})
	default:
		// Taken under an earlier stream: this one was told of fewer slots, and of all bytes.
		w.sendCredit(&pb.RelayCredit{Slots: 1})
	}
}

func (w *work) freeSlot(a *attempt) {
	w.taken--
	w.credit(a.slot)
}

func (w *work) letGo(a *attempt) {
	a.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.freeSlot(a)
	w.forget(a)
}

func (w *work) forget(a *attempt) {
	delete(w.attempts, a.start.Lease)
	w.changed.Broadcast()
}

// drain takes no more work (11.1).
func (w *work) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.draining = true
	w.sendDrain()
}

// finish lets what is in hand end, and half-closes the stream (11).
func (w *work) finish() {
	late := time.AfterFunc(drainTime, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, a := range w.attempts {
			a.halt("DRAINING")
		}
	})
	defer late.Stop()
	w.mu.Lock()
	for len(w.attempts) > 0 {
		w.changed.Wait()
	}
	w.leaving = true
	if w.stream != nil {
		_ = w.stream.CloseSend()
	}
	w.mu.Unlock()
	select {
	case <-w.ended:
	case <-time.After(2 * time.Second):
	}
}
