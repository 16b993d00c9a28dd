//! containerd's own interface, for containers that no pod and no Docker has: those of `ctr` and `nerdctl`.

use std::{collections::HashMap, path::Path};

use anyhow::Context as _;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use super::{Details, labelled, pod_of_labels, socket};

const NAMESPACES: PathAndQuery = PathAndQuery::from_static("/containerd.services.namespaces.v1.Namespaces/List");
const CONTAINER: PathAndQuery = PathAndQuery::from_static("/containerd.services.containers.v1.Containers/Get");

#[derive(Clone, PartialEq, prost::Message)]
struct ListNamespacesRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListNamespacesResponse {
    #[prost(message, repeated, tag = "1")]
    namespaces: Vec<Namespace>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Namespace {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetContainerRequest {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetContainerResponse {
    #[prost(message, optional, tag = "1")]
    container: Option<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(map = "string, string", tag = "2")]
    labels: HashMap<String, String>,
    #[prost(string, tag = "3")]
    image: String,
}

/// What containerd says of a container, whatever namespace it is in.
///
/// # Errors
///
/// It is not there, or does not know the container.
pub async fn ask(socket: &Path, id: &str) -> anyhow::Result<Details> {
    let mut grpc = Grpc::new(socket::channel(socket).await?);
    let spaces: ListNamespacesResponse = call(&mut grpc, NAMESPACES, ListNamespacesRequest {}, None).await?;
    for space in spaces.namespaces {
        let asked = GetContainerRequest { id: id.to_owned() };
        let answer: Result<GetContainerResponse, _> = call(&mut grpc, CONTAINER, asked, Some(&space.name)).await;
        if let Ok(GetContainerResponse { container: Some(container) }) = answer {
            return Ok(read(container));
        }
    }
    anyhow::bail!("containerd does not know {id}")
}

async fn call<Q, A>(
    grpc: &mut Grpc<Channel>,
    path: PathAndQuery,
    message: Q,
    namespace: Option<&str>,
) -> anyhow::Result<A>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut request = Request::new(message);
    if let Some(namespace) = namespace {
        let value: MetadataValue<Ascii> = namespace.parse().context("a namespace that is no header field")?;
        request.metadata_mut().insert("containerd-namespace", value);
    }
    grpc.ready().await?;
    Ok(grpc.unary(request, path, ProstCodec::default()).await?.into_inner())
}

fn read(container: Container) -> Details {
    const NAME: &str = "nerdctl/name";
    // `ctr` calls containers by their id.
    let name = container.labels.get(NAME).cloned().unwrap_or_else(|| container.id.clone());
    let mut details = vec![("container.name".to_owned(), name), ("container.image".to_owned(), container.image)];
    details.extend(pod_of_labels(&container.labels));
    details.extend(labelled("container.labels", container.labels));
    details
}
