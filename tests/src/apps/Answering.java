import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;

/** Answers with who it is and the query of the request: Answering NAME PORT. The HTTP server of the JDK. */
class Answering {
    public static void main(String[] arguments) throws Exception {
        String name = arguments[0];
        byte[] body = "java\n".getBytes(StandardCharsets.US_ASCII);
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(arguments[1])), 1024);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.createContext("/", exchange -> {
            try (exchange) {
                exchange.getRequestBody().readAllBytes();
                exchange.getResponseHeaders().set("X-Answer", name + " " + exchange.getRequestURI().getRawQuery());
                exchange.sendResponseHeaders(200, body.length);
                exchange.getResponseBody().write(body);
            } catch (Throwable error) {
                error.printStackTrace();
                throw error;
            }
        });
        server.start();
        System.out.println("ready");
    }
}
