//! From an exchange and its connection to a row of the transactions batch.

use ringtap_exchange::{Body, Cut, Exchange, Part, Role, Version};
use ringtap_ring::abi::Library;

use crate::{
    clock::WallOffset,
    coding::Plain,
    connections::Connection,
    transactions::{Phase, TransactionsBuilder, cut},
};

/// Everything that a row is made of.
pub(crate) struct NewRow<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) exchange: &'a Exchange,
    pub(crate) tls: bool,
    pub(crate) wall: WallOffset,
    /// Name of the machine, and tags of everything that it captures.
    pub(crate) host: &'a str,
    pub(crate) tags: &'a [String],
    pub(crate) request_id: String,
    pub(crate) phase: Phase,
}

impl NewRow<'_> {
    /// Adds the row; the bodies are handed over apart, so that they need not be copied.
    pub(crate) fn push(&self, to: &mut TransactionsBuilder, bodies: [Plain; 2]) {
        self.push_identity(to);
        self.push_ends(to);
        self.push_request(to);
        self.push_response(to);
        to.damage(&self.exchange.damage);
        self.push_messages(to);
        let [request, response] = bodies;
        let cut = |body: &Body, plain: &Plain| cut(body).or(plain.cut.map(Cut::as_str));
        let answer = self.exchange.response.as_ref();
        to.request_cut.append_option(cut(&self.exchange.request.body, &request));
        to.response_cut.append_option(answer.and_then(|answer| cut(&answer.body, &response)));
        to.request_decoded.append_option(request.decoded);
        to.response_decoded.append_option(response.decoded);
        TransactionsBuilder::body(&mut to.request_body, request.bytes);
        TransactionsBuilder::body(&mut to.response_body, response.bytes);
    }

    fn push_identity(&self, to: &mut TransactionsBuilder) {
        let (c, times) = (self.connection, &self.exchange.times);
        let start = self.wall.wall_ns(times.request_start);
        to.request_id.append_value(&self.request_id);
        to.connection_id.append_value(&c.xid);
        to.start_ns.append_value(start);
        to.end_ns.append_value(self.wall.wall_ns(times.end.max(times.request_end)));
        to.first_byte_ns.append_option(times.response_start.map(|at| self.wall.wall_ns(at)));
        to.direction.append_value(c.direction());
        to.protocol.append_value(protocol_of(self.exchange));
        to.socket.append_value(c.socket.as_str());
        to.phase.append_value(self.phase.as_str());
        to.tls.append_value(self.tls);
        to.tls_library.append_option(c.library.filter(|_| self.tls).map(Library::as_str));
        let hello = c.tls();
        to.tls_version.append_option(hello.and_then(|hello| hello.version));
        to.tls_sni.append_option(hello.and_then(|hello| hello.sni.as_deref()));
        for protocol in hello.iter().flat_map(|hello| &hello.alpn) {
            to.tls_alpn.values().append_value(protocol);
        }
        to.tls_alpn.append(true);
        let process = c.process.as_deref();
        to.process_id.append_value(c.tgid);
        to.process_exe.append_option(process.map(|p| p.exe.as_str()));
        to.process_user.append_option(process.and_then(|p| p.user.as_deref()));
        to.process_uid.append_option(process.and_then(|p| p.uid));
        to.host.append_value(self.host);
        for (name, value) in process.into_iter().flat_map(|p| &p.details) {
            to.details.keys().append_value(name);
            to.details.values().append_value(value);
        }
        to.details.append(true).expect("as many names as values");
        let endpoint = c.endpoint_id();
        self.push_tags(to, &endpoint);
        to.endpoint_id.append_value(endpoint);
    }

    fn push_tags(&self, to: &mut TransactionsBuilder, endpoint: &str) {
        let process = self.connection.process.as_deref();
        let own = process.map_or(&[][..], |p| &p.tags);
        for tag in self.connection.tags(endpoint, protocol_of(self.exchange)).iter().chain(self.tags).chain(own) {
            to.tags.values().append_value(tag);
        }
        to.tags.append(true);
    }

    fn push_ends(&self, to: &mut TransactionsBuilder) {
        let ends = self.connection.addresses();
        let local = ends.map(|e| (e.local().to_string(), e.local_port));
        let remote = ends.map(|e| (e.remote().to_string(), e.remote_port));
        let server = self.connection.role() == Some(Role::Server);
        let (src, dst) = if server { (remote, local) } else { (local, remote) };
        to.src_port.append_option(src.as_ref().map(|(_, port)| *port));
        to.src_ip.append_option(src.map(|(ip, _)| ip));
        to.dst_port.append_option(dst.as_ref().map(|(_, port)| *port));
        to.dst_ip.append_option(dst.map(|(ip, _)| ip));
    }

    fn push_messages(&self, to: &mut TransactionsBuilder) {
        let [request, response] = [Part::Request, Part::Response].map(|part| self.exchange.messages(part));
        to.dialect.append_option(request.or(response).map(|messages| messages.dialect.as_str()));
        let first = response.and_then(|messages| messages.first);
        to.first_message_ns.append_option(first.map(|at| self.wall.wall_ns(at)));
        let columns = (&mut to.request_message_count, &mut to.request_messages);
        TransactionsBuilder::messages(columns, request, self.wall);
        let columns = (&mut to.response_message_count, &mut to.response_messages);
        TransactionsBuilder::messages(columns, response, self.wall);
    }

    fn push_request(&self, to: &mut TransactionsBuilder) {
        let request = &self.exchange.request;
        let target = Target::of(self.exchange, self.tls, self.connection);
        to.method.append_value(&request.method);
        to.url.append_value(target.url());
        to.path.append_value(target.path);
        to.scheme.append_value(target.scheme);
        to.authority.append_value(&target.authority);
        TransactionsBuilder::headers(&mut to.request_headers, Some(&request.head));
        to.request_body_size.append_value(request.body.size);
        to.request_bytes.append_value(request.head.bytes + request.body.size);
    }

    fn push_response(&self, to: &mut TransactionsBuilder) {
        let response = self.exchange.response.as_ref();
        let missing = if self.exchange.closed_early && self.exchange.damage.is_empty() { 499 } else { 422 };
        TransactionsBuilder::headers(&mut to.response_headers, response.map(|r| &r.head));
        let status = response.map(|r| r.status).filter(|status| *status > 0);
        to.status.append_value(status.unwrap_or(missing));
        to.response_body_size.append_value(response.map_or(0, |r| r.body.size));
        to.response_bytes.append_value(response.map_or(0, |r| r.head.bytes + r.body.size));
    }
}

/// Name of the protocol that an exchange came in.
fn protocol_of(exchange: &Exchange) -> &'static str {
    if exchange.request.head.version == Version::Http2 { "http2" } else { "http1" }
}

/// A request target in its parts.
struct Target<'a> {
    scheme: &'a str,
    authority: String,
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    fn of(exchange: &'a Exchange, tls: bool, connection: &Connection) -> Self {
        let request = &exchange.request;
        let scheme = request.scheme.as_deref().unwrap_or(if tls { "https" } else { "http" });
        let (scheme, absolute, rest) = match request.target.split_once("://") {
            Some((scheme, rest)) if !request.target.starts_with('/') => {
                let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (scheme, Some(authority), path)
            }
            _ if request.method == "CONNECT" && request.protocol.is_none() => {
                (scheme, Some(request.target.as_str()), "")
            }
            _ => (scheme, None, request.target.as_str()),
        };
        let authority = absolute.or_else(|| request.host()).map(str::to_owned);
        let server = connection.role() == Some(Role::Server);
        let address = || {
            let ends = connection.addresses()?;
            let (ip, port) = if server { (ends.local(), ends.local_port) } else { (ends.remote(), ends.remote_port) };
            Some(std::net::SocketAddr::new(ip, port).to_string())
        };
        let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        Self { scheme, authority: authority.or_else(address).unwrap_or_default(), path, query }
    }

    fn url(&self) -> String {
        let slash = if self.path.starts_with('/') || self.path.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}{}", self.scheme, self.authority, self.path, self.query)
    }
}
