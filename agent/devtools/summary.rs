//! A row of the page's list.

use arrow_array::Array as _;
use ringtap_batch::{
    clock::rfc3339,
    grpc::Grpc,
    transactions::{Transactions, port, text},
};
use serde::Serialize;

/// What the list shows of a transaction. Times are in milliseconds, sizes in bytes.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    /// Counts what was shown; holes are rows that the viewer's filter left out, or that it was too slow for.
    seq: u64,
    /// Of the request.
    id: &'a str,
    connection: &'a str,
    /// `complete`; `started` and later `ended` for one that lasts.
    phase: &'a str,
    time: String,
    /// The same, since 1970.
    start: f64,
    /// To the first byte of the response.
    first_byte: Option<f64>,
    duration: f64,
    method: &'a str,
    status: u16,
    url: &'a str,
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
    protocol: &'a str,
    dialect: Option<&'a str>,
    direction: &'a str,
    pid: u32,
    process: Option<&'a str>,
    user: Option<&'a str>,
    container: Option<&'a str>,
    pod: Option<&'a str>,
    tls: Option<&'a str>,
    socket: &'a str,
    source: String,
    destination: String,
    request_type: Option<&'a str>,
    response_type: Option<&'a str>,
    request_size: u64,
    response_size: u64,
    request_cut: Option<&'a str>,
    response_cut: Option<&'a str>,
    damage: usize,
    service: Option<&'a str>,
    grpc_status: Option<u8>,
}

impl<'a> Summary<'a> {
    /// Of a row.
    #[must_use]
    pub fn of(t: &'a Transactions<'a>, row: usize, seq: u64, grpc: Option<&Grpc<'a>>) -> Self {
        let start = t.start_ns.value(row);
        let first_byte = t.first_byte_ns.is_valid(row).then(|| ms(t.first_byte_ns.value(row) - start));
        Self {
            seq,
            id: t.request_id.value(row),
            connection: t.connection_id.value(row),
            phase: t.phase.value(row),
            time: rfc3339(start),
            start: ms(start),
            first_byte,
            duration: ms(t.end_ns.value(row) - start),
            method: t.method.value(row),
            status: t.status.value(row),
            url: t.url.value(row),
            scheme: t.scheme.value(row),
            host: Some(t.authority.value(row)).filter(|host| !host.is_empty()).unwrap_or(t.endpoint_id.value(row)),
            path: t.path.value(row),
            protocol: t.protocol.value(row),
            dialect: text(t.dialect, row),
            direction: t.direction.value(row),
            pid: t.process_id.value(row),
            process: text(t.process_exe, row),
            user: text(t.process_user, row),
            container: t.detail(row, "container.name"),
            pod: t.detail(row, "pod.name"),
            tls: text(t.tls_library, row),
            socket: t.socket.value(row),
            source: address(text(t.src_ip, row), port(t.src_port, row)),
            destination: address(text(t.dst_ip, row), port(t.dst_port, row)),
            request_type: Transactions::header(t.request_headers, row, "content-type"),
            response_type: Transactions::header(t.response_headers, row, "content-type"),
            request_size: t.request_body_size.value(row),
            response_size: t.response_body_size.value(row),
            request_cut: text(t.request_cut, row),
            response_cut: text(t.response_cut, row),
            damage: t.damage(row).count(),
            service: grpc.map(|grpc| grpc.service),
            grpc_status: grpc.and_then(|grpc| grpc.status),
        }
    }
}

fn ms(ns: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds are left, which is what people compare")]
    let ms = (ns / 1000) as f64 / 1000.0;
    ms
}

/// `address:port`, as far as it is known.
fn address(ip: Option<&str>, port: Option<u16>) -> String {
    match (ip, port) {
        (Some(ip), Some(port)) if ip.contains(':') => format!("[{ip}]:{port}"),
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        (ip, _) => ip.unwrap_or_default().to_owned(),
    }
}
