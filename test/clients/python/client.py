"""A stock Python client of a service that happens to be durable. Usage: client.py ADDRESS KEY"""

import json
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import stock_pb2
import stock_pb2_grpc

address, key = sys.argv[1:3]
stub = stock_pb2_grpc.StockActionsStub(grpc.insecure_channel(address))


def call(method, text, timeout=60, **headers):
    """The call, when it is over."""
    metadata = [(f"taskmesh-{name.replace('_', '-')}", value) for name, value in headers.items()]
    made = method.future(stock_pb2.Text(text=text), timeout=timeout, metadata=metadata)
    made.exception()
    return made


def run_id(made):
    return dict(made.initial_metadata()).get("taskmesh-run-id", "")


def answer(made):
    reply = made.result()
    return {"letters": reply.letters, "large": str(reply.large), "runId": run_id(made)}


def refusal(made):
    seen = {"code": made.code().name}
    for detail in rpc_status.from_call(made).details:
        info, refused = error_details_pb2.ErrorInfo(), stock_pb2.Refusal()
        if detail.Unpack(info):
            seen["reason"] = info.reason
        if detail.Unpack(refused):
            seen.update(why=refused.why, number=str(refused.number))
    return seen


first = answer(call(stub.Count, "hello"))
spelled = stub.Spell(stock_pb2.Text(text="hop"), timeout=60)
letters = [letter.text for letter in spelled]
held = call(stub.Hold, "hold", timeout=5)
print(
    json.dumps(
        {
            "unary": first,
            "sameKey": [run_id(call(stub.Count, "again", idempotency_key=key)) for _ in range(2)],
            "otherInput": call(stub.Count, "other", idempotency_key=key).code().name,
            "deadline": {"code": held.code().name, "runId": run_id(held)},
            "stream": {"letters": letters, "runId": run_id(spelled)},
            "refused": refusal(call(stub.Refuse, "refuse")),
            "async": answer(call(stub.Count, "later", **{"async": "true"})),
        }
    )
)
