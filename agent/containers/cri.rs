//! The interface by which Kubernetes speaks to its runtimes (CRI, runtime.v1): the one that knows pods.

use std::{collections::HashMap, path::Path};

use anyhow::Context as _;
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::{Details, labelled, pod_of_labels, socket};

const CONTAINERS: PathAndQuery = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListContainers");
const SANDBOXES: PathAndQuery = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");

#[derive(Clone, PartialEq, prost::Message)]
struct ListRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<Filter>,
}

/// Both of a container and of a sandbox: what is looked for is its id.
#[derive(Clone, PartialEq, prost::Message)]
struct Filter {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    sandbox: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    image: Option<Image>,
    #[prost(string, tag = "5")]
    image_ref: String,
    #[prost(map = "string, string", tag = "8")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    sandboxes: Vec<Sandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sandbox {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<SandboxMetadata>,
    #[prost(map = "string, string", tag = "5")]
    labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "6")]
    annotations: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

/// What the runtime says of a container and its pod.
///
/// # Errors
///
/// It is not there, does not speak this interface, or does not know the container.
pub async fn ask(socket: &Path, id: &str) -> anyhow::Result<Details> {
    let mut grpc = Grpc::new(socket::channel(socket).await?);
    let answer: ListContainersResponse = list(&mut grpc, CONTAINERS, id).await?;
    let container = answer.containers.into_iter().find(|container| container.id == id);
    let container = container.with_context(|| format!("the runtime of pods does not know {id}"))?;
    let answer: ListPodSandboxResponse = list(&mut grpc, SANDBOXES, &container.sandbox).await?;
    let sandbox = answer.sandboxes.into_iter().find(|sandbox| sandbox.id == container.sandbox);
    Ok(read(container, sandbox))
}

async fn list<A>(grpc: &mut Grpc<Channel>, path: PathAndQuery, id: &str) -> anyhow::Result<A>
where
    A: prost::Message + Default + 'static,
{
    grpc.ready().await?;
    let request = Request::new(ListRequest { filter: Some(Filter { id: id.to_owned() }) });
    Ok(grpc.unary(request, path, ProstCodec::default()).await?.into_inner())
}

fn read(container: Container, sandbox: Option<Sandbox>) -> Details {
    let image = container.image.map(|image| image.image).filter(|image| !image.is_empty());
    let mut details = vec![
        ("container.name".to_owned(), container.metadata.unwrap_or_default().name),
        ("container.image".to_owned(), image.unwrap_or(container.image_ref)),
    ];
    match sandbox {
        Some(Sandbox { metadata, labels, annotations, .. }) => {
            let SandboxMetadata { name, uid, namespace } = metadata.unwrap_or_default();
            let named = [("pod.name", name), ("pod.namespace", namespace), ("pod.uid", uid)];
            details.extend(named.map(|(key, value)| (key.to_owned(), value)));
            details.extend(labelled("pod.labels", labels));
            details.extend(labelled("pod.annotations", annotations));
        }
        None => details.extend(pod_of_labels(&container.labels)),
    }
    details.extend(labelled("container.labels", container.labels));
    details
}
