//! Docker's interface, and Podman's, which answers the same.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;

use super::{Details, labelled, pod_of_labels, socket};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    name: String,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: String,
    labels: Option<HashMap<String, String>>,
}

/// What Docker says of a container.
///
/// # Errors
///
/// It is not there, or does not know the container.
pub async fn ask(socket: &Path, id: &str) -> anyhow::Result<Details> {
    let answer = socket::get(socket, &format!("/containers/{id}/json")).await?;
    Ok(read(serde_json::from_slice(&answer)?))
}

fn read(Container { name, config }: Container) -> Details {
    let labels = config.labels.unwrap_or_default();
    let mut details = vec![
        ("container.name".to_owned(), name.trim_start_matches('/').to_owned()),
        ("container.image".to_owned(), config.image),
    ];
    details.extend(pod_of_labels(&labels));
    details.extend(labelled("container.labels", labels));
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let text = r#"{"Id":"0123","Name":"/relaxed_zhukovsky","Image":"sha256:1","Config":{"Image":"curlimages/curl",
            "Labels":{"team":"web"},"Env":[]},"State":{"Pid":7}}"#;
        let details = read(serde_json::from_str(text).expect("an answer"));
        let expected = [
            ("container.name", "relaxed_zhukovsky"),
            ("container.image", "curlimages/curl"),
            ("container.labels.team", "web"),
        ];
        assert_eq!(details, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn labels_may_be_null() {
        let details = read(serde_json::from_str(r#"{"Name":"/a","Config":{"Image":"b","Labels":null}}"#).expect("one"));
        assert_eq!(details.len(), 2);
    }
}
