//! Bytes from peers for what is damaged here: each configured peer is asked until one has them.

use std::sync::Arc;

use tracing::debug;

use crate::peer::links::Links;
use crate::runtime::damage::Damaged;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::scrub::{ContentSource, Fetched};
use crate::store::body::Body;
use crate::sync::contents::Lacking;

impl ContentSource for Links {
    fn fetch<'a>(
        &'a self,
        namespace: &'a Arc<OpenNamespace>,
        wanted: &'a [Damaged],
    ) -> Fetched<'a> {
        Box::pin(async move {
            let mut bodies: Vec<Option<Body>> = vec![None; wanted.len()];
            for address in self.addresses() {
                let mut places = Vec::new();
                let mut lacking: Vec<Lacking> = Vec::new();
                for (place, one) in wanted.iter().enumerate() {
                    let asked = lacking.iter().any(|asked| asked.content == one.content);
                    if bodies[place].is_none() && !asked {
                        places.push(place);
                        lacking.push(Lacking {
                            key: one.key,
                            content: one.content,
                            size: one.size,
                        });
                    }
                }
                if lacking.is_empty() {
                    break;
                }
                let fetched = self.runner().contents(&address, namespace, lacking).await;
                match fetched {
                    Ok(fetched) => {
                        for (place, body) in places.into_iter().zip(fetched) {
                            bodies[place] = body;
                        }
                    }
                    Err(error) => debug!(peer = %address, %error, "asked in vain for lost bytes"),
                }
            }
            bodies
        })
    }
}
