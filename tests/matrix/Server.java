import com.sun.net.httpserver.*;
import java.io.*;
import java.net.*;
import java.security.KeyStore;
import javax.net.ssl.*;

public class Server { // PORT KEYSTORE.p12 (password "secret")
    public static void main(String[] a) throws Exception {
        var ks = KeyStore.getInstance("PKCS12");
        ks.load(new FileInputStream(a[1]), "secret".toCharArray());
        var km = KeyManagerFactory.getInstance("SunX509");
        km.init(ks, "secret".toCharArray());
        var ctx = SSLContext.getInstance("TLS");
        ctx.init(km.getKeyManagers(), null, null);
        var s = HttpsServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(a[0])), 0);
        s.setHttpsConfigurator(new HttpsConfigurator(ctx));
        s.createContext("/", x -> {
            byte[] b = ("# echo " + x.getRequestURI() + "\n").getBytes();
            x.sendResponseHeaders(200, b.length);
            x.getResponseBody().write(b);
            x.close();
        });
        s.start();
    }
}
