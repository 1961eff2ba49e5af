//! What a new member asks those that are there.

use std::time::Duration;

use anyhow::bail;
use keelson_proto::raft_transport::{MembersRequest, PeerMember};

use super::connect::Connector;
use crate::cluster::{Membership, from_peer};
use crate::urls::Url;

const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(500);

/// Asks the members at `others` for the group, and finds this member in it by its peer URLs.
///
/// # Errors
/// When nobody answers, or the group was not told of this member.
pub async fn ask(
    connector: &Connector,
    others: &[Url],
    own_urls: &[Url],
) -> anyhow::Result<(u64, Membership)> {
    let started = std::time::Instant::now();
    let mut last = None;
    while started.elapsed() < PATIENCE {
        for url in others {
            let asked = async {
                let mut client = connector.connect(url).await?;
                let response = client.members(MembersRequest {}).await?.into_inner();
                anyhow::Ok((response.cluster_id, response.members))
            };
            match asked.await {
                Ok((cluster_id, members)) => match find(&members, own_urls) {
                    Some(id) => return Ok((id, joining(cluster_id, members))),
                    None => {
                        last = Some(anyhow::anyhow!(
                            "the group at {url} has no member with this one's peer URLs; add it first"
                        ));
                    }
                },
                Err(error) => last = Some(error),
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    match last {
        Some(error) => Err(error.context("joining the group")),
        None => bail!("--initial-cluster names nobody to join"),
    }
}

fn find(members: &[PeerMember], own_urls: &[Url]) -> Option<u64> {
    let own: std::collections::BTreeSet<String> = own_urls.iter().map(Url::to_string).collect();
    members
        .iter()
        .find(|member| {
            member
                .peer_urls
                .iter()
                .cloned()
                .collect::<std::collections::BTreeSet<_>>()
                == own
        })
        .map(|member| member.id)
}

/// The group as one who is not yet part of it knows it: whom to answer, but not who votes.
fn joining(cluster_id: u64, members: Vec<PeerMember>) -> Membership {
    Membership {
        cluster_id,
        members: members
            .into_iter()
            .map(|member| (member.id, from_peer(member)))
            .collect(),
        ..Membership::default()
    }
}
