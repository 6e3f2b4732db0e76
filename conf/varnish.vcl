# Varnish before imgproxy: pictures for as long as they like, deletions at once. See docs/edge.md.
# IMG_PURGE="PURGE http://127.0.0.1:6081/"  IMG_PURGE_HEADERS="Surrogate-Key={hash}"
vcl 4.1;

backend default {
    .host = "127.0.0.1";
    .port = "8080";
    .first_byte_timeout = 40s;
}

# Who may say that something was deleted: the nodes.
acl nodes {
    "127.0.0.1";
    "::1";
}

sub vcl_recv {
    if (req.method == "PURGE") {
        if (client.ip !~ nodes) {
            return (synth(403, "Forbidden"));
        }
        if (req.http.Surrogate-Key !~ "^[0-9a-f]{64}$") {
            return (synth(400, "No hash"));
        }
        ban("obj.http.Surrogate-Key == " + req.http.Surrogate-Key);
        return (synth(200, "Purged"));
    }
    if (req.url ~ "^/(admin|v1|metrics|healthz|readyz)") {
        return (pass);
    }
    # A picture depends on its name alone.
    unset req.http.Cookie;
    unset req.http.Accept-Encoding;
}

sub vcl_backend_response {
    # Trouble is over in a second or two, and not to be kept at all; `stale-while-revalidate` is understood as it stands.
    if (beresp.status >= 500 && beresp.status != 501) {
        set beresp.uncacheable = true;
        set beresp.ttl = 1s;
    }
}
