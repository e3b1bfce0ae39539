// HTTP/1.1 servers on a JDK that ask another one before they answer. In: its own port, the port of the other one, the kind of server, threads.
// GET /MODE/in/N asks /MODE/out/N: which request was made for which can be told by the path.
//
// Kinds: `pool` is com.sun.net.httpserver with a pool of so many threads, `virtual` the same with a virtual thread for each request,
// `sockets` has a platform thread for each connection, on ServerSocket, `virtualsockets` a virtual one.
// Modes: `url` asks with HttpURLConnection, `client` with HttpClient.send(); `same` likewise, with a client that runs on the server's
// pool; `async` with sendAsync() of that client, and whoever hears of the answer answers.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

public class Relay {
    static final byte[] BODY = "hello".getBytes(StandardCharsets.UTF_8);
    static String other;
    static HttpClient client;
    static HttpClient same;

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        other = "http://127.0.0.1:" + args[1];
        String kind = args[2];
        ExecutorService threads = kind.startsWith("virtual")
            // By name: older JDKs have none, and shall compile this.
            ? (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null)
            : kind.equals("pool") ? Executors.newFixedThreadPool(Integer.parseInt(args[3])) : Executors.newCachedThreadPool();
        client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        same = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).executor(threads).build();
        InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
        if (kind.endsWith("sockets")) {
            ServerSocket listener = new ServerSocket(port, 128, InetAddress.getLoopbackAddress());
            while (true) {
                Socket socket = listener.accept();
                socket.setTcpNoDelay(true);
                threads.execute(() -> serve(socket));
            }
        }
        HttpServer server = HttpServer.create(address, 128);
        server.setExecutor(threads);
        server.createContext("/", Relay::handle);
        server.start();
    }

    static void handle(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        if (path.startsWith("/async/in/")) {
            same.sendAsync(request(path), BodyHandlers.ofString()).whenComplete((answer, error) -> answer(exchange));
            return;
        }
        ask(path);
        answer(exchange);
    }

    static void answer(HttpExchange exchange) {
        try {
            exchange.sendResponseHeaders(200, BODY.length);
            exchange.getResponseBody().write(BODY);
            exchange.close();
        } catch (IOException error) {
            error.printStackTrace();
        }
    }

    static void serve(Socket socket) {
        try (socket) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.ISO_8859_1));
            byte[] answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".getBytes(StandardCharsets.ISO_8859_1);
            for (String first = lines.readLine(); first != null; first = lines.readLine()) {
                for (String line = lines.readLine(); line != null && !line.isEmpty(); line = lines.readLine()) {}
                ask(first.split(" ")[1]);
                socket.getOutputStream().write(answer);
            }
        } catch (IOException error) {
            error.printStackTrace();
        }
    }

    static HttpRequest request(String path) {
        return HttpRequest.newBuilder(URI.create(other + path.replace("/in/", "/out/"))).build();
    }

    static void ask(String path) throws IOException {
        if (!path.contains("/in/")) return;
        if (path.startsWith("/url/")) {
            URI out = URI.create(other + path.replace("/in/", "/out/"));
            HttpURLConnection connection = (HttpURLConnection) out.toURL().openConnection();
            try (InputStream body = connection.getInputStream()) {
                body.readAllBytes();
            }
            return;
        }
        try {
            (path.startsWith("/same/") ? same : client).send(request(path), BodyHandlers.ofString());
        } catch (InterruptedException error) {
            throw new IOException(error);
        }
    }
}
