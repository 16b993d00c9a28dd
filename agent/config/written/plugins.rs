//! Plugins of a stack, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::{StoreRef, is_default, truth};

/// Level of `http_capture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No object.
    #[default]
    None,
    /// Metadata only.
    Summary,
    /// Also header fields.
    #[serde(alias = "details")]
    Headers,
    /// Also bodies.
    Full,
}

/// Format of `http_capture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON.
    #[default]
    Json,
    /// Readable text.
    Text,
}

/// `http_capture`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct HttpCapture {
    /// Of transactions that no rule matches.
    pub level: Level,
    /// Of transactions that no rule matches.
    pub format: Format,
    /// Which store.
    #[serde(skip_serializing_if = "is_default")]
    pub object_store: StoreRef,
    /// The first that matches decides.
    pub rules: Vec<CaptureRule>,
}

/// A rule of `http_capture`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct CaptureRule {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Expression.
    pub expr: String,
    /// Level of what it matches.
    #[serde(default)]
    pub level: Level,
    /// Format of what it matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// `access_logs` and `debug`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct AccessLogs {
    /// How much of each transaction.
    pub mode: Mode,
    /// In which form; by the plugin's type if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<LogFormat>,
    /// The first that matches decides.
    pub rules: Vec<LogRule>,
}

/// How much of a transaction is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing.
    None,
    /// A line.
    #[default]
    Summary,
    /// Also header fields.
    #[serde(alias = "headers")]
    Details,
    /// Also bodies.
    Full,
}

/// Form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// JSON lines.
    Json,
    /// Readable lines.
    Console,
}

/// A rule of `access_logs`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct LogRule {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Expression.
    pub expr: String,
    /// Mode of what it matches.
    #[serde(default)]
    pub mode: Mode,
}

/// `report_usage`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ReportUsage {
    /// Read, without effect, as in the program that this is compatible with.
    pub tags: Vec<String>,
    /// Header fields to promote.
    pub headers: Vec<String>,
    /// Which event store. Ours.
    #[serde(skip_serializing_if = "is_default")]
    pub event_store: StoreRef,
}

/// `http_metrics`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct HttpMetrics {}

/// `llm`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Llm {
    /// Which store. Ours.
    #[serde(skip_serializing_if = "is_default")]
    pub object_store: StoreRef,
}

/// `detect_errors`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct DetectErrors {
    /// Each looks at every transaction.
    pub rules: Vec<ErrorRule>,
    /// Which object store. Ours.
    #[serde(skip_serializing_if = "is_default")]
    pub object_store: StoreRef,
    /// Which event store. Ours.
    #[serde(skip_serializing_if = "is_default")]
    pub event_store: StoreRef,
}

/// A number or a text.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum NumberOrText {
    /// `500`
    Number(#[serde(serialize_with = "shortest")] f64),
    /// `"5xx"`, `"1.5s"`
    Text(String),
}

/// `500`, not `500.0`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn shortest<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "only taken if it is the same number")]
    let whole = *number as i64;
    #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "only taken if it is the same number")]
    if whole as f64 == *number { serializer.serialize_i64(whole) } else { serializer.serialize_f64(*number) }
}

/// A rule of `detect_errors`: all conditions that it has must hold.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ErrorRule {
    /// Name of the issue.
    pub name: String,
    /// `500`, `50x`, `5xx`.
    pub trigger_status_codes: Vec<NumberOrText>,
    /// The response has no body.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub trigger_empty_body: bool,
    /// At least so slow: milliseconds, or a duration such as `1.5s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger_duration: Option<NumberOrText>,
    /// Texts in the response's body.
    pub trigger_contains: Vec<String>,
    /// Categories of the response's content type.
    pub only_categories: Vec<Category>,
    /// Urls.
    pub only_urls: Vec<String>,
    /// Urls.
    pub exclude_urls: Vec<String>,
    /// `key:value`.
    pub with_tags: Vec<String>,
    /// Make an event.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub report_as_issue: bool,
    /// Without effect, as in the program that this is compatible with.
    #[serde(rename = "continue", deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub go_on: bool,
    /// Store an object.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub record_req_headers: bool,
    /// Store an object.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub record_req_body: bool,
    /// Store an object.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub record_res_headers: bool,
    /// Store an object.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub record_res_body: bool,
}

/// Category of a content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Pages and data.
    App,
    /// Style sheets.
    Css,
    /// Scripts.
    Js,
    /// Fonts.
    Font,
    /// Images.
    Image,
    /// Sound and film.
    Media,
    /// All else.
    Other,
}

impl Category {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Css => "css",
            Self::Js => "js",
            Self::Font => "font",
            Self::Image => "image",
            Self::Media => "media",
            Self::Other => "other",
        }
    }
}

/// `data_loss_protection`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct DataLossProtection {
    /// Also look at header fields.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub scan_headers: bool,
    /// Patterns.
    pub rules: Vec<DlpRule>,
    /// Which object store. Ours.
    #[serde(skip_serializing_if = "is_default")]
    pub object_store: StoreRef,
    /// Which event store. Ours.
    #[serde(skip_serializing_if = "is_default")]
    pub event_store: StoreRef,
}

/// A pattern of `data_loss_protection`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct DlpRule {
    /// What it finds.
    pub label: String,
    /// Regular expression.
    pub expression: String,
    /// Mask it in everything that leaves.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub scrub: bool,
    /// Make an event.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub report: bool,
    /// Store an object.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub record: bool,
    /// Refused: it needs a proxy in the path, which this is not.
    #[serde(deserialize_with = "truth")]
    #[schemars(with = "bool")]
    pub fail_on_detect: bool,
}
