//! Leases: granted, kept alive, revoked, run out, and what becomes of their keys.

use super::{Case, Watch, compare, header, op, range, soon, watched};
use kvstore::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    PutRequest, TxnRequest, WatchCreateRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

impl Case {
    pub(super) async fn leases(&mut self) {
        self.title("leases");
        self.grant(7, 600).await;
        self.grant(7, 600).await;
        self.grant(8, 1).await;
        self.grant(9, -5).await;
        self.grant(10, 9_000_000_001).await;
        self.grant(11, 1200).await;
        let put = |key: &str, lease: i64| PutRequest {
            key: key.to_owned().into(),
            value: "leased".into(),
            lease,
            ..PutRequest::default()
        };
        for (key, lease) in [("l/2", 7), ("l/1", 7), ("l/3", 11), ("l/4", 7), ("l/4", 0), ("l/5", 12)] {
            self.put(put(key, lease)).await;
        }
        self.put(PutRequest { ignore_lease: true, ..put("l/1", 0) }).await;
        self.put(PutRequest { ignore_value: true, value: "".into(), ..put("l/1", 11) }).await;
        self.put(PutRequest { ignore_value: true, value: "".into(), ..put("l/1", 7) }).await;
        self.range(range("l/", "l0")).await;
        for id in [7, 11, 12, 0] {
            self.time_to_live(id).await;
        }
        self.keep_alive(&[7, 12, 11]).await;
        let of_lease = compare("l/1", CompareTarget::Lease, CompareResult::Equal, TargetUnion::Lease(7));
        self.txn(TxnRequest { compare: vec![of_lease], ..TxnRequest::default() }).await;
        let refused = op(Request::RequestPut(put("l/6", 12)));
        self.txn(TxnRequest { success: vec![refused], ..TxnRequest::default() }).await;
        self.delete("l/2", "", true).await;
        self.time_to_live(7).await;

        self.title("leases: revoked, and run out");
        let mut watch = Watch::open(&self.channel);
        watch.create(WatchCreateRequest { prev_kv: true, ..watched("l/", "l0") }).await;
        watch.expect("created", 1, &mut self.out).await;
        self.set("l/0", "other").await;
        watch.expect("put", 1, &mut self.out).await;
        self.put(put("l/9", 7)).await;
        watch.expect("put", 1, &mut self.out).await;
        self.revoke(7).await;
        watch.expect("deleted with its lease", 2, &mut self.out).await;
        self.revoke(7).await;
        self.time_to_live(7).await;
        self.range(range("l/", "l0")).await;
        self.grant(13, 2).await;
        self.put(put("l/short", 13)).await;
        watch.expect("put", 1, &mut self.out).await;
        watch.expect("deleted when the lease ran out", 1, &mut self.out).await;
        self.range(range("l/", "l0")).await;
        self.time_to_live(13).await;
        self.keep_alive(&[13]).await;
        self.listed().await;
        self.revoke(11).await;
        self.listed().await;
    }

    async fn grant(&mut self, id: i64, ttl: i64) {
        let answer = self.lease.lease_grant(LeaseGrantRequest { ttl, id }).await.map(|response| {
            let response = response.into_inner();
            format!(
                "{} lease {} for {} {:?}",
                header(response.header),
                response.id,
                response.ttl,
                response.error
            )
        });
        self.note(&format!("grant {id} for {ttl}"), answer);
    }

    async fn revoke(&mut self, id: i64) {
        let answer = self.lease.lease_revoke(LeaseRevokeRequest { id }).await;
        self.note(&format!("revoke {id}"), answer.map(|response| header(response.into_inner().header)));
    }

    async fn time_to_live(&mut self, id: i64) {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let answer = self.lease.lease_time_to_live(request).await.map(|response| {
            let mut response = response.into_inner();
            // etcd gives the keys in no order.
            response.keys.sort();
            // A second may pass meanwhile, but not ten.
            let (elapsed, granted) = (response.granted_ttl - response.ttl, response.granted_ttl);
            let left = if granted == 0 {
                response.ttl.to_string()
            } else {
                format!("{}", (0..10).contains(&elapsed))
            };
            format!(
                "{} lease {} left {left} of {granted} {:?}",
                header(response.header),
                response.id,
                response.keys
            )
        });
        self.note(&format!("time to live of {id}"), answer);
    }

    async fn keep_alive(&mut self, ids: &[i64]) {
        let requests = ids.iter().map(|id| LeaseKeepAliveRequest { id: *id }).collect::<Vec<_>>();
        let mut answers = Vec::new();
        let call = self.lease.lease_keep_alive(tokio_stream::iter(requests));
        let mut responses = soon("keep-alive", call).await.expect("a stream").into_inner();
        while answers.len() < ids.len() {
            let response = soon("keep-alive", responses.message()).await.expect("no error").expect("open");
            answers.push(format!("{} lease {} for {}", header(response.header), response.id, response.ttl));
        }
        self.note(&format!("keep alive {ids:?}"), Ok(answers.join(", ")));
    }

    async fn listed(&mut self) {
        let answer = self.lease.lease_leases(LeaseLeasesRequest {}).await.map(|response| {
            let response = response.into_inner();
            let ids: Vec<i64> = response.leases.iter().map(|lease| lease.id).collect();
            format!("{} {ids:?}", header(response.header))
        });
        self.note("leases", answer);
    }
}
