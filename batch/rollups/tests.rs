use arrow_array::types::{Int64Type, TimestampMicrosecondType, UInt64Type};

use super::*;
use crate::{capture::Decision, capture::Format, objects::objects, transactions::TransactionsBuilder};

/// A batch with the given header of each response, made as shards make it.
fn batch(rows: &[(&str, &str)]) -> RecordBatch {
    let mut builder = TransactionsBuilder::default();
    for (at, (name, value)) in (0i64..).zip(rows) {
        builder.start_ns.append_value(1_000_000_999 + at);
        builder.end_ns.append_value(1_000_005_001 + at);
        builder.first_byte_ns.append_option((at == 0).then_some(1_000_002_000));
        builder.first_message_ns.append_null();
        for text in [
            &mut builder.request_id,
            &mut builder.connection_id,
            &mut builder.direction,
            &mut builder.protocol,
            &mut builder.socket,
            &mut builder.phase,
            &mut builder.host,
            &mut builder.endpoint_id,
            &mut builder.method,
            &mut builder.url,
            &mut builder.scheme,
            &mut builder.path,
            &mut builder.authority,
            &mut builder.tls_library,
            &mut builder.tls_sni,
            &mut builder.process_exe,
            &mut builder.process_user,
            &mut builder.src_ip,
            &mut builder.dst_ip,
            &mut builder.request_cut,
            &mut builder.response_cut,
            &mut builder.request_decoded,
            &mut builder.response_decoded,
        ] {
            text.append_value(format!("x{at}"));
        }
        builder.dialect.append_value("grpc");
        builder.tls.append_value(true);
        builder.tls_version.append_null();
        builder.tls_alpn.append(true);
        builder.process_id.append_value(7);
        builder.process_uid.append_null();
        for (key, value) in
            [("container.name", format!("c{at}")), ("process.env.TOKEN", "s".into()), ("pod.labels.app", "shop".into())]
        {
            builder.details.keys().append_value(key);
            builder.details.values().append_value(value);
        }
        builder.details.append(true).expect("as many names as values");
        for tag in ["bin:a", "protocol:http1", "host:mine", "team:web"] {
            builder.tags.values().append_value(tag);
        }
        builder.tags.append(true);
        builder.src_port.append_null();
        builder.dst_port.append_value(443);
        builder.request_headers.append(true).expect("as many names as values");
        builder.response_headers.keys().append_value(name);
        builder.response_headers.values().append_value(value);
        builder.response_headers.append(true).expect("as many names as values");
        builder.request_body.append_value(b"");
        builder.response_body.append_value(b"");
        for count in [
            &mut builder.request_body_size,
            &mut builder.response_body_size,
            &mut builder.request_bytes,
            &mut builder.response_bytes,
            &mut builder.request_message_count,
            &mut builder.response_message_count,
        ] {
            count.append_value(5);
        }
        builder.status.append_value(200);
        builder.request_messages.append(true);
        builder.response_messages.append(true);
        builder.damage(&[]);
    }
    builder.finish()
}

fn texts<'a>(made: &'a RecordBatch, name: &str) -> Vec<Option<&'a str>> {
    made.column_by_name(name).expect("a column").as_string::<i32>().iter().collect()
}

#[test]
fn times_fit_each_other_to_the_microsecond() {
    let made = batch(&[("a", "b")]);
    let made = rows(&Transactions::of(&made).expect("its schema"), &Outcome::default(), false);
    let time =
        |name: &str| made.column_by_name(name).expect("a column").as_primitive::<TimestampMicrosecondType>().value(0);
    let span = |name: &str| made.column_by_name(name).expect("a column").as_primitive::<Int64Type>().value(0);
    assert_eq!((time("start"), time("time"), span("duration_us"), span("first_byte_us")), (1_000_000, 1_000_005, 5, 2));
}

/// Only what was decided to be kept is; and what the process was told by its environment is not.
#[test]
fn headers_follow_the_level_of_their_row() {
    let transactions = batch(&[("Content-Type", "text/a"), ("grpc-status", "5"), ("content-type", "text/c")]);
    let t = Transactions::of(&transactions).expect("its schema");
    let levels = vec![Level::Full, Level::None, Level::Summary];
    let decisions: Vec<Decision> =
        levels.iter().map(|level| Decision { level: *level, format: Format::Json }).collect();
    let mut outcome = Outcome { stack: "s", levels, rules: vec![Some("r"), None, None], ..Outcome::default() };
    outcome.note_objects(&objects(&t, &decisions).expect("two objects"), Some("u".into()));
    let made = rows(&t, &outcome, true);
    let headers = made.column_by_name("response_headers").expect("a column");
    assert_eq!((headers.is_valid(0), headers.is_valid(1), headers.is_valid(2)), (true, false, false));
    let bare = rows(&t, &outcome, false);
    assert_eq!(bare.column_by_name("response_headers").expect("a column").null_count(), 3);
    assert_eq!(texts(&made, "response_content_type"), [Some("text/a"), None, Some("text/c")]);
    assert_eq!(
        made.column_by_name("grpc_status")
            .expect("a column")
            .as_primitive::<arrow_array::types::UInt8Type>()
            .iter()
            .collect::<Vec<_>>(),
        [None, Some(5), None]
    );
    assert_eq!(texts(&made, "level"), [Some("full"), Some("none"), Some("summary")]);
    assert_eq!(texts(&made, "rule"), [Some("r"), None, None]);
    assert_eq!(texts(&made, "object_url"), [Some("u"), None, Some("u")]);
    let digests: Vec<bool> =
        texts(&made, "digest").iter().map(|digest| digest.is_some_and(|d| d.len() == 40)).collect();
    assert_eq!(digests, [true, false, true]);
    assert_eq!(texts(&made, "container_name"), [Some("c0"), Some("c1"), Some("c2")]);
    let labels = made.column_by_name("labels").expect("a column").as_map();
    assert_eq!(labels.keys().as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["pod.labels.app"; 3]);
    let tags = made.column_by_name("tags").expect("a column").as_list::<i32>().value(0);
    assert_eq!(tags.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["host:mine", "team:web"]);
    assert_eq!(made.column_by_name("missing_bytes").expect("a column").as_primitive::<UInt64Type>().value(0), 0);
}
