import com.acme.stock.v1.Counted;
import com.acme.stock.v1.Refusal;
import com.acme.stock.v1.StockActionsGrpc;
import com.acme.stock.v1.StockActionsGrpc.StockActionsBlockingStub;
import com.acme.stock.v1.Text;
import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.StringJoiner;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BiFunction;

/** A stock Java client of a service that happens to be durable. Usage: Client ADDRESS KEY */
public final class Client {
  private final StockActionsBlockingStub stub;

  private Client(ManagedChannel channel) {
    stub = StockActionsGrpc.newBlockingStub(channel);
  }

  /** A call that is over. */
  private record Called(Counted reply, StatusRuntimeException error, Metadata initial) {
    String runId() {
      String id = initial == null ? null : initial.get(key("taskmesh-run-id"));
      return id == null ? "" : id;
    }

    String code() {
      return error.getStatus().getCode().name();
    }

    String answer() {
      if (error != null) throw error;
      return "{\"letters\":%d,\"large\":\"%d\",\"runId\":\"%s\"}".formatted(reply.getLetters(), reply.getLarge(), runId());
    }

    String refusal() throws Exception {
      String reason = "", why = "", number = "";
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) reason = detail.unpack(ErrorInfo.class).getReason();
        if (!detail.is(Refusal.class)) continue;
        Refusal refused = detail.unpack(Refusal.class);
        why = refused.getWhy();
        number = Long.toString(refused.getNumber());
      }
      String form = "{\"code\":\"%s\",\"reason\":\"%s\",\"why\":\"%s\",\"number\":\"%s\"}";
      return form.formatted(code(), reason, why, number);
    }
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  private Called call(
      BiFunction<StockActionsBlockingStub, Text, Counted> method, String text, int seconds, String... headers) {
    Metadata sent = new Metadata();
    for (int i = 0; i < headers.length; i += 2) sent.put(key(headers[i]), headers[i + 1]);
    AtomicReference<Metadata> initial = new AtomicReference<>();
    StockActionsBlockingStub one =
        stub.withDeadlineAfter(seconds, TimeUnit.SECONDS)
            .withInterceptors(
                MetadataUtils.newAttachHeadersInterceptor(sent),
                MetadataUtils.newCaptureMetadataInterceptor(initial, new AtomicReference<>()));
    try {
      return new Called(method.apply(one, Text.newBuilder().setText(text).build()), null, initial.get());
    } catch (StatusRuntimeException error) {
      return new Called(null, error, initial.get());
    }
  }

  private Called count(String text, String... headers) {
    return call(StockActionsBlockingStub::count, text, 60, headers);
  }

  private Called keyed(String text, String key) {
    return count(text, "taskmesh-idempotency-key", key);
  }

  private String spell(String text) {
    AtomicReference<Metadata> initial = new AtomicReference<>();
    StockActionsBlockingStub one =
        stub.withDeadlineAfter(60, TimeUnit.SECONDS)
            .withInterceptors(MetadataUtils.newCaptureMetadataInterceptor(initial, new AtomicReference<>()));
    StringJoiner letters = new StringJoiner("\",\"", "\"", "\"");
    one.spell(Text.newBuilder().setText(text).build()).forEachRemaining(letter -> letters.add(letter.getText()));
    return "{\"letters\":[%s],\"runId\":\"%s\"}".formatted(letters, initial.get().get(key("taskmesh-run-id")));
  }

  public static void main(String[] args) throws Exception {
    ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
    Client client = new Client(channel);
    String key = args[1];
    Called first = client.count("hello");
    Called held = client.call(StockActionsBlockingStub::hold, "hold", 5);
    System.out.println(
        "{\"unary\":%s,\"sameKey\":[\"%s\",\"%s\"],\"otherInput\":\"%s\",\"deadline\":{\"code\":\"%s\",\"runId\":\"%s\"},\"stream\":%s,\"refused\":%s,\"async\":%s}"
            .formatted(
                first.answer(),
                client.keyed("again", key).runId(),
                client.keyed("again", key).runId(),
                client.keyed("other", key).code(),
                held.code(),
                held.runId(),
                client.spell("hop"),
                client.call(StockActionsBlockingStub::refuse, "refuse", 60).refusal(),
                client.count("later", "taskmesh-async", "true").answer()));
    channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
  }
}
