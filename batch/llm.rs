//! The plugin `llm`: conversations with the interfaces of language models, as `llm_conversation` objects.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    RecordBatch,
    builder::{ListBuilder, StringBuilder},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{fields::RowFields, objects::ObjectsBuilder, redact::Redaction, transactions::Transactions};

/// Key of the tag that names the provider.
const TAG: &str = "llm_provider";

/// A conversation, as far as one transaction shows it.
#[derive(Debug, Serialize)]
struct Conversation<'a> {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent_id: String,
    provider: &'a str,
    model: String,
    messages: Vec<Message>,
    version: u8,
}

#[derive(Debug, Serialize)]
struct Message {
    role: String,
    content: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    r#type: String,
    data: String,
}

/// Who is asked, by host, header fields and path.
fn provider(t: &Transactions<'_>, row: usize) -> Option<&'static str> {
    let host = t.authority.value(row).to_ascii_lowercase();
    let host = host.split(':').next().unwrap_or_default();
    let path = t.path.value(row);
    let has = |name| Transactions::header(t.request_headers, row, name).is_some();
    let under = |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let chat = path.ends_with("/chat/completions") || path.ends_with("/responses");
    if under("anthropic.com") || (has("anthropic-version") && path.ends_with("/messages")) {
        Some("anthropic")
    } else if under("mistral.ai") {
        Some("mistral")
    } else if (under("googleapis.com") && path.contains("enerateContent")) || under("generativelanguage.googleapis.com")
    {
        Some("google")
    } else if under("openai.com") || (under("openai.azure.com") && chat) || (has("openai-organization") && chat) {
        Some("openai")
    } else {
        None
    }
}

/// Whether a row that is not complete is of interest.
#[must_use]
pub fn can_want_bodies(row: &RowFields<'_>) -> bool {
    let (t, row) = row.place();
    provider(t, row).is_some()
}

/// The batch with the provider among the tags of its rows; `None` if no row has one.
///
/// # Panics
///
/// Never: the column has the type of the one it stands for.
#[must_use]
pub fn tagged(batch: &RecordBatch) -> Option<RecordBatch> {
    let t = Transactions::of(batch)?;
    let providers: Vec<Option<&str>> = (0..t.rows()).map(|row| provider(&t, row)).collect();
    if providers.iter().all(Option::is_none) {
        return None;
    }
    let mut tags = ListBuilder::new(StringBuilder::new());
    for (row, provider) in providers.iter().enumerate() {
        t.tags_of(row).for_each(|tag| tags.values().append_value(tag));
        provider.iter().for_each(|provider| tags.values().append_value(format!("{TAG}:{provider}")));
        tags.append(true);
    }
    let schema = batch.schema();
    let mut columns = batch.columns().to_vec();
    columns[schema.index_of("tags").expect("a column of transactions")] = Arc::new(tags.finish());
    Some(RecordBatch::try_new(schema, columns).expect("as many rows, of the same type"))
}

/// The conversations of the rows that are ones.
#[must_use]
pub fn conversations(t: &Transactions<'_>, redaction: &Redaction) -> Option<RecordBatch> {
    let mut objects = ObjectsBuilder::default();
    for row in 0..t.rows() {
        let found = provider(t, row).and_then(|provider| conversation(t, row, provider));
        let Some(mut conversation) = found else { continue };
        // Put together, pieces can be a secret that none of them was.
        for part in conversation.messages.iter_mut().flat_map(|message| &mut message.content) {
            part.data = redaction.any_text(&part.data);
        }
        let bytes = serde_json::to_vec(&conversation).expect("texts and numbers always serialize");
        objects.push(t, row, "llm_conversation", (bytes, "application/json"));
    }
    objects.finish()
}

fn conversation<'a>(t: &Transactions<'_>, row: usize, provider: &'a str) -> Option<Conversation<'a>> {
    // Nobody answers to what is only measured.
    if t.path.value(row).ends_with("/embeddings") {
        return None;
    }
    let request: Value = serde_json::from_slice(t.request_body.value(row)).ok()?;
    let answers = answers(t.response_body.value(row));
    let mut messages = asked(&request);
    if messages.is_empty() {
        return None;
    }
    messages.extend(answered(&answers));
    let first = |name: &str| {
        answers.iter().find_map(|answer| text_at(answer, &[name]).or_else(|| text_at(answer, &["message", name])))
    };
    let model_of_path =
        || t.path.value(row).rsplit_once("models/").map(|(_, rest)| rest.split(':').next().unwrap_or(rest).to_owned());
    Some(Conversation {
        id: first("id").or_else(|| first("responseId")).unwrap_or_else(|| t.request_id.value(row).to_owned()),
        parent_id: text_at(&request, &["previous_response_id"]).unwrap_or_default(),
        provider,
        model: first("model").or_else(|| text_at(&request, &["model"])).or_else(model_of_path).unwrap_or_default(),
        messages,
        version: 1,
    })
}

fn text_at(value: &Value, path: &[&str]) -> Option<String> {
    let found = path.iter().try_fold(value, |value, name| value.get(name))?;
    found.as_str().map(str::to_owned)
}

/// A response's documents: one, or those of a stream of events.
fn answers(body: &[u8]) -> Vec<Value> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(items)) => items,
        Ok(value) => vec![value],
        Err(_) => {
            let lines = body.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
            lines.filter_map(|data| serde_json::from_slice(data).ok()).collect()
        }
    }
}

/// What was sent: system prompts and messages, in the forms of all four.
fn asked(request: &Value) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut add = |role: &str, content: Vec<Part>| {
        if !content.is_empty() {
            messages.push(Message { role: role.to_owned(), content });
        }
    };
    for name in ["system", "systemInstruction", "system_instruction", "instructions"] {
        request.get(name).into_iter().for_each(|system| add("system", parts(system)));
    }
    for list in ["messages", "contents", "input"] {
        match request.get(list) {
            Some(Value::Array(items)) => {
                for item in items {
                    let role = item.get("role").and_then(Value::as_str).unwrap_or("user");
                    let has_form = ["content", "parts", "tool_calls"].iter().any(|name| item.get(name).is_some());
                    add(role, if has_form { said(item) } else { parts(item) });
                }
            }
            Some(text @ Value::String(_)) => add("user", parts(text)),
            _ => {}
        }
    }
    messages
}

/// A text, a list of parts, or an object that holds one.
fn parts(content: &Value) -> Vec<Part> {
    let text = |data: &str| Part { r#type: "text".into(), data: data.to_owned() };
    match content {
        Value::String(data) => vec![text(data)],
        Value::Array(items) => items.iter().flat_map(parts).collect(),
        Value::Object(fields) => match (fields.get("text"), fields.get("parts").or_else(|| fields.get("content"))) {
            (Some(Value::String(data)), _) => vec![text(data)],
            (_, Some(inner)) => parts(inner),
            _ => {
                let kind = fields.get("type").and_then(Value::as_str);
                let kind = kind.or_else(|| fields.keys().next().map(String::as_str)).unwrap_or("other");
                vec![Part { r#type: kind.to_owned(), data: content.to_string() }]
            }
        },
        _ => Vec::new(),
    }
}

/// What a message of either side holds: its content, and the calls of tools.
fn said(message: &Value) -> Vec<Part> {
    let calls = ["tool_calls", "function_call"].into_iter().filter_map(|name| message.get(name));
    let calls = calls.flat_map(|calls| calls.as_array().map_or(std::slice::from_ref(calls), Vec::as_slice));
    let calls = calls.filter(|call| !call.is_null());
    let mut all = message.get("content").or_else(|| message.get("parts")).map(parts).unwrap_or_default();
    all.extend(calls.map(|call| Part { r#type: "tool_call".into(), data: call.to_string() }));
    all
}

/// An answer that comes in pieces.
#[derive(Debug, Default)]
struct Streamed {
    text: String,
    /// Name and arguments of each call of a tool, by its place.
    calls: BTreeMap<i64, (String, String)>,
}

impl Streamed {
    /// The delta of a choice.
    fn add(&mut self, delta: &Value) {
        self.text.push_str(&text_at(delta, &["content"]).unwrap_or_default());
        for call in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            self.add_call(index_of(call), call.get("function").unwrap_or(call), "arguments");
        }
    }

    fn add_call(&mut self, at: i64, call: &Value, arguments: &str) {
        let (name, all) = self.calls.entry(at).or_default();
        name.push_str(&text_at(call, &["name"]).unwrap_or_default());
        all.push_str(&text_at(call, &[arguments]).unwrap_or_default());
    }

    fn message(self) -> Message {
        let text = (!self.text.is_empty()).then(|| Part { r#type: "text".into(), data: self.text });
        let calls = self.calls.into_values().map(|(name, arguments)| Part {
            r#type: "tool_call".into(),
            data: json!({"name": name, "arguments": arguments}).to_string(),
        });
        Message { role: "assistant".into(), content: text.into_iter().chain(calls).collect() }
    }
}

fn index_of(value: &Value) -> i64 {
    value.get("index").and_then(Value::as_i64).unwrap_or(0)
}

/// What came back, the pieces of a stream put together, each choice for itself.
fn answered(answers: &[Value]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut streamed: BTreeMap<i64, Streamed> = BTreeMap::new();
    for answer in answers {
        let choices = answer.get("choices").or_else(|| answer.get("candidates")).and_then(Value::as_array);
        for choice in choices.into_iter().flatten() {
            if let Some(message) = choice.get("message") {
                messages.push(Message { role: role_of(message), content: said(message) });
            } else if let Some(delta) = choice.get("delta") {
                streamed.entry(index_of(choice)).or_default().add(delta);
            } else if let Some(content) = choice.get("content") {
                let own = streamed.entry(index_of(choice)).or_default();
                parts(content).into_iter().for_each(|part| own.text.push_str(&part.data));
            }
        }
        match answer.get("type").and_then(Value::as_str) {
            Some("content_block_start") => {
                let block = answer.get("content_block").filter(|block| block.get("name").is_some());
                let own = block.map(|block| (streamed.entry(0).or_default(), block));
                own.into_iter().for_each(|(own, block)| own.add_call(index_of(answer), block, "partial_json"));
            }
            Some("content_block_delta") => {
                let (own, delta) = (streamed.entry(0).or_default(), answer.get("delta").unwrap_or(answer));
                own.text.push_str(&text_at(delta, &["text"]).unwrap_or_default());
                if delta.get("partial_json").is_some() {
                    own.add_call(index_of(answer), delta, "partial_json");
                }
            }
            Some("response.output_text.delta") => {
                streamed.entry(0).or_default().text.push_str(&text_at(answer, &["delta"]).unwrap_or_default());
            }
            Some("message") => messages.push(Message { role: role_of(answer), content: said(answer) }),
            _ => {
                if let Some(Value::Array(items)) = answer.get("output") {
                    let spoken = items.iter().filter_map(|item| item.get("content")).flat_map(parts).collect();
                    messages.push(Message { role: "assistant".into(), content: spoken });
                }
            }
        }
    }
    messages.extend(streamed.into_values().map(Streamed::message));
    messages.retain(|message| !message.content.is_empty());
    messages
}

fn role_of(message: &Value) -> String {
    message.get("role").and_then(Value::as_str).unwrap_or("assistant").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation_of(request: &Value, response: &[u8]) -> String {
        let mut messages = asked(request);
        messages.extend(answered(&answers(response)));
        let said =
            |m: &Message| format!("{}: {}", m.role, m.content.iter().map(|p| p.data.as_str()).collect::<String>());
        messages.iter().map(said).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn each_provider_is_understood() {
        let chat = json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]});
        let answer = br#"{"id":"c1","model":"m","choices":[{"message":{"role":"assistant","content":"hello"}}]}"#;
        assert_eq!(conversation_of(&chat, answer), "system: be brief | user: hi | assistant: hello");
        let stream = b"data: {\"choices\":[{\"delta\":{\"content\":\"hel\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\ndata: [DONE]\n";
        assert_eq!(conversation_of(&chat, stream), "system: be brief | user: hi | assistant: hello");
        let anthropic = json!({"system": "s", "messages": [{"role": "user", "content": "hi"}]});
        assert_eq!(
            conversation_of(
                &anthropic,
                br#"{"type":"message","role":"assistant","content":[{"type":"text","text":"hello"}]}"#
            ),
            "system: s | user: hi | assistant: hello"
        );
        let stream = b"event: x\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}\n";
        assert_eq!(conversation_of(&anthropic, stream), "system: s | user: hi | assistant: hello");
        let google = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
        let answer = br#"{"candidates":[{"content":{"role":"model","parts":[{"text":"hello"}]}}]}"#;
        assert_eq!(conversation_of(&google, answer), "user: hi | assistant: hello");
        let responses = json!({"input": "hi", "instructions": "s"});
        let answer = br#"{"output":[{"type":"message","content":[{"type":"output_text","text":"hello"}]}]}"#;
        assert_eq!(conversation_of(&responses, answer), "system: s | user: hi | assistant: hello");
    }

    #[test]
    fn calls_of_tools_and_several_choices_are_kept_apart() {
        let chat = json!({"messages": [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": {"name": "w", "arguments": "{}"}}]},
        ]});
        let answer = br#"{"choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"w"}}]}}]}"#;
        assert_eq!(
            conversation_of(&chat, answer),
            r#"user: weather? | assistant: {"function":{"arguments":"{}","name":"w"},"id":"1"} | assistant: {"function":{"name":"w"}}"#
        );
        let piece =
            |index: i64, delta: Value| format!("data: {}\n\n", json!({"choices": [{"index": index, "delta": delta}]}));
        let stream = [
            piece(0, json!({"content": "a"})),
            piece(1, json!({"content": "x"})),
            piece(0, json!({"content": "b"})),
            piece(1, json!({"tool_calls": [{"index": 0, "function": {"name": "w", "arguments": "{\"a\""}}]})),
            piece(1, json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})),
        ];
        let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
        assert_eq!(
            conversation_of(&chat, stream.concat().as_bytes()),
            r#"user: hi | assistant: ab | assistant: x{"arguments":"{\"a\":1}","name":"w"}"#
        );
        let stream = "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"name\":\"w\"}}\n\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n";
        assert_eq!(conversation_of(&chat, stream.as_bytes()), r#"user: hi | assistant: {"arguments":"{}","name":"w"}"#);
    }
}
