use proptest::prelude::*;

use super::*;
use crate::election::settings::Times;

fn settings() -> Settings {
    Settings {
        namespace: "isthmus".to_owned(),
        name: "mesh-apiserver".to_owned(),
        times: Times::new(15, 10, 2).expect("they work"),
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A moment on a wall clock, `of` telling them apart.
fn clock(of: i64) -> Timestamp {
    Timestamp::from_second(of).expect("a moment")
}

fn lease(wish: Wish) -> Lease {
    match wish {
        Wish::Create(lease) | Wish::Update(lease) => lease,
        Wish::Nothing => panic!("nothing is wished"),
    }
}

fn held_by(holder: &str, renewed: i64) -> Lease {
    let spec = LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(15),
        renew_time: Some(MicroTime(clock(renewed))),
        lease_transitions: Some(4),
        ..LeaseSpec::default()
    };
    Lease { spec: Some(spec), ..Lease::default() }
}

#[test]
fn one_that_is_not_there_is_made() {
    let (mut view, now) = (View::new(settings(), "a"), Instant::now());
    assert_eq!(view.to_lead(now, clock(0)), Wish::Nothing, "before anything is read");
    view.read(None, now);
    let wish = view.to_lead(now, clock(7));
    assert!(matches!(&wish, Wish::Create(_)), "{wish:?}");
    let made = lease(wish);
    assert_eq!(made.metadata.name.as_deref(), Some("mesh-apiserver"));
    let spec = made.spec.clone().expect("a specification");
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("a"), Some(15)));
    assert_eq!((spec.acquire_time, spec.lease_transitions), (Some(MicroTime(clock(7))), Some(0)));
    assert!(!view.holds(), "not before the API server has it");
    view.wrote(made, now, now);
    assert_eq!((view.renewed(), view.holder()), (Some(now), Some("a")));
    // Renewed: of the same holder since the same time.
    let renewed = lease(view.to_lead(now + secs(2), clock(9))).spec.expect("a specification");
    assert_eq!((renewed.acquire_time, renewed.lease_transitions), (Some(MicroTime(clock(7))), Some(0)));
    assert_eq!(renewed.renew_time, Some(MicroTime(clock(9))));
}

#[test]
fn what_a_holder_says_of_the_time_does_not_matter() {
    // Of the past, of the future, and of now.
    for said in [0, 9_000_000_000, 1_800_000_000] {
        let (mut view, start) = (View::new(settings(), "a"), Instant::now());
        let mut taken_after = None;
        for second in (0..40).step_by(2) {
            let now = start + secs(second);
            view.read(Some(held_by("b", said)), now);
            if view.to_lead(now, clock(1_800_000_000)) != Wish::Nothing {
                taken_after = Some(second);
                break;
            }
        }
        assert_eq!(taken_after, Some(16), "the first look after 15 s, whatever was written");
        let taken = lease(view.to_lead(start + secs(16), clock(0))).spec.expect("a specification");
        assert_eq!(taken.lease_transitions, Some(5), "one more");
    }
}

#[test]
fn time_in_which_nobody_could_look_does_not_count() {
    let (mut view, start) = (View::new(settings(), "a"), Instant::now());
    view.read(Some(held_by("b", 0)), start);
    // An hour without the API server: the holder was without it, too.
    let back = start + secs(3600);
    view.read(Some(held_by("b", 0)), back);
    assert_eq!(view.to_lead(back, clock(0)), Wish::Nothing);
    for second in (2..=16).step_by(2) {
        view.read(Some(held_by("b", 0)), back + secs(second));
    }
    assert_ne!(view.to_lead(back + secs(16), clock(0)), Wish::Nothing);
}

#[test]
fn one_that_was_released_is_free_at_once() {
    let (mut view, now) = (View::new(settings(), "b"), Instant::now());
    view.read(Some(held_by("b", 0)), now);
    let released = lease(view.to_leave(clock(1)));
    let mut other = View::new(settings(), "a");
    other.read(Some(held_by("b", 0)), now);
    assert_eq!(other.to_lead(now, clock(1)), Wish::Nothing);
    assert_eq!(other.to_leave(clock(1)), Wish::Nothing, "what is another's is not released");
    other.read(Some(released), now);
    assert_eq!((other.holder(), other.rivals()), (None, 0));
    let taken = lease(other.to_lead(now, clock(2))).spec.expect("a specification");
    assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("a"), Some(5)));
}

#[test]
fn an_own_lease_of_an_earlier_life_is_taken_up_at_once() {
    let (mut view, now) = (View::new(settings(), "a"), Instant::now());
    view.read(Some(held_by("a", 0)), now);
    assert!(!view.holds(), "not by a renewal of this process");
    let taken = lease(view.to_lead(now, clock(2))).spec.expect("a specification");
    assert_eq!(taken.lease_transitions, Some(4), "the same holder");
}

#[test]
fn a_rival_is_one_that_was_seen_to_write() {
    let (mut view, start) = (View::new(settings(), "a"), Instant::now());
    view.read(Some(held_by("b", 0)), start);
    assert_eq!(view.rivals(), 0, "it may be long gone");
    view.read(Some(held_by("b", 0)), start + secs(2));
    assert_eq!(view.rivals(), 0);
    view.read(Some(held_by("b", 4)), start + secs(4));
    assert_eq!(view.rivals(), 1, "it renews");
    view.read(Some(held_by("b", 90)), start + secs(90));
    assert_eq!(view.rivals(), 1, "when, nobody knows");
    view.read(Some(held_by("a", 92)), start + secs(92));
    assert_eq!(view.rivals(), 1, "itself");
    view.wrote(held_by("a", 94), start + secs(94), start + secs(94));
    assert!(view.holds());
    view.read(Some(held_by("c", 96)), start + secs(96));
    assert_eq!((view.rivals(), view.holds()), (2, false));
}

#[test]
fn nobodys_word_keeps_a_lease_for_ever() {
    let (mut view, start) = (View::new(settings(), "a"), Instant::now());
    let mut endless = held_by("b", 0);
    endless.spec.get_or_insert_default().lease_duration_seconds = Some(i32::MAX);
    for second in (0..=3602).step_by(2) {
        view.read(Some(endless.clone()), start + secs(second));
    }
    assert_ne!(view.to_lead(start + secs(3602), clock(0)), Wish::Nothing);
}

/// The API server, as far as it matters here: one object, and writes by revision.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    revision: u64,
}

impl Server {
    fn write(&mut self, wish: Wish) -> Option<Lease> {
        let revision = self.revision.to_string();
        let mut lease = match wish {
            Wish::Create(lease) if self.lease.is_none() => lease,
            Wish::Update(lease) if lease.metadata.resource_version.as_ref() == Some(&revision) => lease,
            _ => return None,
        };
        self.revision += 1;
        lease.metadata.resource_version = Some(self.revision.to_string());
        self.lease = Some(lease.clone());
        Some(lease)
    }
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// It does not get there.
    Lost,
    /// It does, and the answer is lost.
    Unheard,
    /// The replica releases what it has.
    Leaves,
}

fn fates() -> impl Strategy<Value = Vec<(usize, Fate, u64)>> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        2 => Just(Fate::Lost),
        1 => Just(Fate::Unheard),
        1 => Just(Fate::Leaves),
    ];
    // Pauses of up to 20 s: longer than the Lease.
    proptest::collection::vec((0..3_usize, fate, prop_oneof![4 => 0..3000_u64, 1 => 0..20_000_u64]), 1..150)
}

proptest! {
    /// Whatever is lost, and however long replicas sleep: no two of them rely on the Lease at one time.
    #[test]
    fn no_two_rely_on_it(steps in fates()) {
        let (mut server, mut now) = (Server::default(), Instant::now());
        let mut views = ["a", "b", "c"].map(|name| View::new(settings(), name));
        let deadline = settings().times.renew_deadline;
        for (step, (at, fate, millis)) in (0..).zip(steps) {
            now += Duration::from_millis(millis);
            let view = &mut views[at];
            let relies = |view: &View| view.renewed().is_some_and(|renewed| now < renewed + deadline);
            // As the campaign does it: one that holds it renews what it knows, and reads only if that was in vain.
            let wish = match fate {
                Fate::Leaves => {
                    view.give_up();
                    view.read(server.lease.clone(), now);
                    view.to_leave(clock(step))
                }
                Fate::Lost => Wish::Nothing,
                _ => {
                    if !view.holds() {
                        view.read(server.lease.clone(), now);
                    }
                    view.to_lead(now, clock(step))
                }
            };
            let is_wish = wish != Wish::Nothing;
            match server.write(wish) {
                Some(lease) if !matches!(fate, Fate::Unheard) => view.wrote(lease, now, now),
                None if is_wish => view.read(server.lease.clone(), now),
                _ => {}
            }
            let relying: Vec<usize> = (0..3).filter(|at| relies(&views[*at])).collect();
            prop_assert!(relying.len() <= 1, "{relying:?} rely on it");
        }
    }
}
