# A stock Ruby client of a service that happens to be durable. Usage: client.rb ADDRESS KEY
require "json"
require "google/protobuf/well_known_types"
require "google/rpc/error_details_pb"
require "stock_services_pb"

include Acme::Stock::V1

address, key = ARGV
STUB = StockActions::Stub.new(address, :this_channel_is_insecure)

# The call, when it is over: its operation, its answer, and its error where there is one.
Call = Struct.new(:operation, :reply, :error) do
  def run_id = operation.metadata.to_h["taskmesh-run-id"] || ""
  def code = GRPC::Core::StatusCodes.constants.find { |name| GRPC::Core::StatusCodes.const_get(name) == error.code }
  def answer = { letters: reply.letters, large: reply.large.to_s, runId: run_id }
end

def call(method, text, timeout: 60, **headers)
  metadata = headers.to_h { |name, value| ["taskmesh-#{name.to_s.tr('_', '-')}", value] }
  request = Text.new(text: text)
  operation = STUB.public_send(method, request, metadata: metadata, deadline: Time.now + timeout, return_op: true)
  Call.new(operation, operation.execute, nil)
rescue GRPC::BadStatus => error
  Call.new(operation, nil, error)
end

def refusal(made)
  made.error.to_rpc_status.details.each_with_object({ code: made.code }) do |detail, seen|
    seen[:reason] = detail.unpack(Google::Rpc::ErrorInfo).reason if detail.is(Google::Rpc::ErrorInfo)
    next unless detail.is(Refusal)

    refused = detail.unpack(Refusal)
    seen.update(why: refused.why, number: refused.number.to_s)
  end
end

first = call(:count, "hello").answer
spelling = STUB.spell(Text.new(text: "hop"), deadline: Time.now + 60, return_op: true)
letters = spelling.execute.map(&:text)
held = call(:hold, "hold", timeout: 5)
puts JSON.generate(
  unary: first,
  sameKey: Array.new(2) { call(:count, "again", idempotency_key: key).run_id },
  otherInput: call(:count, "other", idempotency_key: key).code,
  deadline: { code: held.code, runId: held.run_id },
  stream: { letters: letters, runId: spelling.metadata["taskmesh-run-id"] },
  refused: refusal(call(:refuse, "refuse")),
  async: call(:count, "later", async: "true").answer
)
