use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::*;
use crate::source::{Chunk, Limits, Scratch};
use lanes::MOST;

use Urgency::{Background, Demand};

const PAGE: u64 = 10;

/// How long anything may take before a test fails instead of hanging.
const DEADLINE: Duration = Duration::from_secs(60);

fn pages(offset: u64, count: u64) -> Want {
    Want { offset, len: count * PAGE, page: PAGE }
}

/// Fetches hang until the test lets them go, each by its offset; those begun are told.
struct Hanging {
    begun: mpsc::Sender<u64>,
    go: Arc<Gates>,
}

#[derive(Default)]
struct Gates {
    open: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl Gates {
    fn open(&self, offsets: impl IntoIterator<Item = u64>) {
        self.open.lock().unwrap().extend(offsets);
        self.changed.notify_all();
    }

    fn pass(&self, offset: u64) {
        let mut open = self.open.lock().unwrap();
        while !open.contains(&offset) {
            open = self.changed.wait(open).unwrap();
        }
    }
}

impl Source for Hanging {
    fn len(&self) -> u64 {
        1 << 20
    }
    fn lookup<'a>(&'a self, want: Want, _: &'a Scratch) -> Chunk<'a> {
        Chunk::Absent(want.len)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        let _ = self.begun.send(want.offset);
        self.go.pass(want.offset);
        Ok(vec![7; usize::try_from(want.len).unwrap()].into())
    }
}

/// A source whose fetches hang, and everything around it.
struct Stage {
    fetcher: Fetcher,
    begun: mpsc::Receiver<u64>,
    gates: Arc<Gates>,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
}

type Answer = (u64, Result<Delivery, SourceError>);

impl Stage {
    fn new() -> Self {
        Self::with_budget(Budget::new(Limits::default()))
    }

    fn with_budget(budget: Arc<Budget>) -> Self {
        let ((begin, begun), gates) = (mpsc::channel(), Arc::new(Gates::default()));
        let source = Arc::new(Hanging { begun: begin, go: Arc::clone(&gates) });
        let fetcher = Fetcher::with_budget(source, budget);
        Self { fetcher, begun, gates, answers: mpsc::channel() }
    }

    fn client(&self) -> Client {
        self.fetcher.client(|| {})
    }

    fn job(&self, want: Want) -> FetchJob {
        let answers = self.answers.0.clone();
        FetchJob { want, done: Box::new(move |got| answers.send((want.offset, got)).unwrap()) }
    }

    fn ask(&self, client: &Client, offset: u64, urgency: Urgency) -> Ticket {
        client.try_submit(self.job(pages(offset, 1)), urgency).unwrap()
    }

    fn next_begun(&self) -> u64 {
        self.begun.recv_timeout(DEADLINE).expect("a fetch begins")
    }

    fn next_answer(&self) -> Answer {
        self.answers.1.recv_timeout(DEADLINE).expect("a fetch is answered")
    }

    /// Whether nothing more was begun, once everything that is queued has had its chance.
    fn nothing_begun(&self) -> bool {
        // Another guest's own request is begun last, whatever hangs.
        let witness = self.client();
        for urgency in Urgency::ALL {
            let offset = 900_000 + witness.id * 10;
            let _ticket = self.ask(&witness, offset, urgency);
            let begun = self.next_begun();
            self.gates.open([offset]);
            if begun != offset || self.next_answer().0 != offset {
                return false;
            }
        }
        true
    }
}

#[test]
fn what_nobody_waits_for_keeps_no_fault_waiting() {
    let stage = Stage::new();
    let client = stage.client();
    let background: Vec<_> = (0..10).map(|at| stage.ask(&client, at * 10, Background)).collect();
    let mut begun: Vec<_> = (0..MOST.background).map(|_| stage.next_begun()).collect();
    let faults: Vec<_> = (50..60).map(|at| stage.ask(&client, at * 10, Demand)).collect();
    begun.extend((0..MOST.demand).map(|_| stage.next_begun()));
    begun.sort_unstable();
    let expected = (0..MOST.background as u64).chain((50..).take(MOST.demand));
    assert_eq!(begun, expected.map(|at| at * 10).collect::<Vec<_>>());
    // The others come to their turn, and all are answered.
    stage.gates.open((0..100).map(|at| at * 10));
    let mut answered: Vec<_> = (0..20).map(|_| stage.next_answer().0).collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..10).chain(50..60).map(|at| at * 10).collect::<Vec<_>>());
    drop((background, faults));
}

#[test]
fn a_guest_does_not_wait_for_another_whose_requests_hang() {
    let stage = Stage::new();
    let (greedy, modest) = (stage.client(), stage.client());
    let hanging: Vec<_> = (0..100).map(|at| stage.ask(&greedy, at * 10, Demand)).collect();
    (0..MOST.demand).for_each(|_| _ = stage.next_begun());
    let _ticket = stage.ask(&modest, 5000, Demand);
    assert_eq!(stage.next_begun(), 5000);
    stage.gates.open([5000]);
    assert_eq!(stage.next_answer().0, 5000);
    // From then on they take turns: of a hundred that were there before, one comes first.
    let _tickets = [6000, 6010].map(|offset| stage.ask(&modest, offset, Demand));
    assert_eq!(stage.next_begun(), 6000);
    stage.gates.open([0, 10, 20]);
    let next = [stage.next_begun(), stage.next_begun()];
    assert!(next.contains(&6010), "{next:?}");
    stage.gates.open((0..1000).map(|at| at * 10));
    drop(hanging);
}

#[test]
fn a_range_that_several_ask_for_is_fetched_once() {
    let stage = Stage::new();
    let (one, other) = (stage.client(), stage.client());
    let _first = stage.ask(&one, 10, Demand);
    assert_eq!(stage.next_begun(), 10);
    // While it is under way, and while it is queued.
    let _joined = [stage.ask(&other, 10, Demand), stage.ask(&one, 10, Background)];
    let _busy: Vec<_> = (20..30).map(|at| stage.ask(&one, at * 10, Background)).collect();
    (0..MOST.background).for_each(|_| _ = stage.next_begun());
    let _later = [stage.ask(&one, 1000, Background), stage.ask(&one, 1000, Background)];
    let _sooner = stage.ask(&other, 1000, Demand);
    assert_eq!(stage.next_begun(), 1000, "as soon as a fault waits for it");
    stage.gates.open([10]);
    let answers = [(); 3].map(|()| stage.next_answer());
    assert!(answers.iter().all(|(offset, got)| *offset == 10 && got.is_ok()));
    stage.gates.open([1000]);
    assert!([(); 3].map(|()| stage.next_answer().0).iter().all(|offset| *offset == 1000));
    assert!(stage.nothing_begun());
    // Asked for again it is fetched again: nothing is kept here.
    let _again = stage.ask(&one, 10, Demand);
    assert_eq!(stage.next_begun(), 10);
    stage.gates.open((200..300).map(|at| at * 10));
}

#[test]
fn what_was_taken_back_is_not_begun_or_not_told() {
    let budget = Budget::new(Limits::default());
    let stage = Stage::with_budget(Arc::clone(&budget));
    let client = stage.client();
    let mut tickets: Vec<_> = (0..20).map(|at| stage.ask(&client, at * 10, Demand)).collect();
    (0..MOST.demand).for_each(|_| _ = stage.next_begun());
    // Of those that wait one is left, and one that is under way is not wanted any more.
    let last = tickets.pop();
    tickets.truncate(MOST.demand);
    drop(tickets.remove(0));
    // Its bytes count until they are dropped.
    assert_eq!(budget.used(), (MOST.demand as u64 + 1) * PAGE);
    stage.gates.open((0..30).map(|at| at * 10));
    assert_eq!(stage.next_begun(), 190);
    let mut answered: Vec<_> = (0..MOST.demand).map(|_| stage.next_answer()).collect();
    answered.sort_unstable_by_key(|(offset, _)| *offset);
    let offsets: Vec<_> = answered.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [10, 20, 30, 40, 50, 60, 70, 190]);
    assert!(stage.nothing_begun() && stage.answers.1.try_recv().is_err());
    drop((last, answered));
    // The thread that has fetched what nobody wants any more drops that by itself.
    let deadline = Instant::now() + Duration::from_secs(60);
    while budget.used() > 0 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(budget.used(), 0);
}

#[test]
fn one_waiter_that_gives_up_takes_nothing_from_the_others() {
    let stage = Stage::new();
    let (one, other) = (stage.client(), stage.client());
    let _busy: Vec<_> =
        (0..MOST.demand as u64).map(|at| stage.ask(&one, at * 10, Demand)).collect();
    (0..MOST.demand).for_each(|_| _ = stage.next_begun());
    let _kept = stage.ask(&one, 500, Demand);
    drop(stage.ask(&one, 500, Demand));
    drop(stage.ask(&one, 500, Background));
    // A guest that leaves takes back all of its own.
    let left = [stage.ask(&other, 500, Background), stage.ask(&other, 510, Background)];
    // Two threads are left, and begin in either order.
    let mut begun = [stage.next_begun(), stage.next_begun()];
    begun.sort_unstable();
    assert_eq!(begun, [500, 510]);
    drop(other);
    stage.gates.open([500, 510]);
    assert_eq!(stage.next_answer().0, 500);
    stage.gates.open((0..30).map(|at| at * 10));
    let mut answered: Vec<_> = (0..MOST.demand).map(|_| stage.next_answer().0).collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..MOST.demand as u64).map(|at| at * 10).collect::<Vec<_>>());
    drop(left);
    assert!(stage.nothing_begun() && stage.answers.1.try_recv().is_err());
}

#[test]
fn bytes_count_from_the_request_until_they_are_dropped_and_room_is_told() {
    const MIB: u64 = 1 << 20;
    let budget = Budget::new(Limits { guest: 4 * MIB, process: 64 * MIB });
    let stage = Stage::with_budget(Arc::clone(&budget));
    let told = Arc::new(AtomicUsize::new(0));
    let (count, page) = (Arc::clone(&told), 4096);
    let client = stage.fetcher.client(move || _ = count.fetch_add(1, Ordering::Relaxed));
    let want = |at: u64| Want { offset: at * MIB, len: MIB, page };
    let ask = |at: u64, urgency| client.try_submit(stage.job(want(at)), urgency);
    let _background = [ask(0, Background).unwrap(), ask(1, Background).unwrap()];
    assert_eq!(ask(2, Background).err(), Some(Full));
    let _faults = [ask(3, Demand).unwrap(), ask(4, Demand).unwrap()];
    assert_eq!(ask(5, Demand).err(), Some(Full));
    assert_eq!(budget.used(), 4 * MIB);
    stage.gates.open((0..10).map(|at| at * MIB));
    let mut answers: Vec<_> = (0..4).map(|_| stage.next_answer()).collect();
    assert_eq!((budget.used(), told.load(Ordering::Relaxed)), (4 * MIB, 0));
    answers.retain(|(offset, _)| *offset < 2 * MIB);
    assert_eq!((budget.used(), told.load(Ordering::Relaxed)), (2 * MIB, 1));
    answers.pop();
    assert_eq!((budget.used(), told.load(Ordering::Relaxed)), (MIB, 2));
    // Zeros and what was not brought after all take up nothing.
    let _more = [ask(5, Demand).unwrap(), ask(6, Demand).unwrap()];
    assert_eq!(budget.used(), 3 * MIB);
}

/// Answers with what the test says.
struct Says(fn(Want) -> Result<Piece, SourceError>);

impl Source for Says {
    fn len(&self) -> u64 {
        1 << 20
    }
    fn lookup<'a>(&'a self, want: Want, _: &'a Scratch) -> Chunk<'a> {
        Chunk::Absent(want.len)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        (self.0)(want)
    }
}

/// What comes of `want`, and how many bytes are in use while it is held.
fn said(
    want: Want,
    source: fn(Want) -> Result<Piece, SourceError>,
) -> (Result<u64, SourceError>, u64) {
    let budget = Budget::new(Limits::default());
    let client = Fetcher::with_budget(Arc::new(Says(source)), Arc::clone(&budget)).client(|| {});
    let (answer, answers) = mpsc::channel();
    let done = Box::new(move |got| answer.send(got).unwrap());
    let _ticket = client.try_submit(FetchJob { want, done }, Demand).unwrap();
    let got = answers.recv_timeout(DEADLINE).unwrap();
    (got.as_ref().map(|delivery| delivery.piece().len()).map_err(Clone::clone), budget.used())
}

#[test]
fn a_source_may_bring_less_and_what_it_brings_counts() {
    assert_eq!(said(pages(0, 4), |want| Ok(Piece::zeros(want.len))), (Ok(40), 0));
    assert_eq!(said(pages(0, 4), |_| Ok(vec![1; 25].into())), (Ok(20), 20));
    assert_eq!(said(pages(0, 4), |_| Ok(vec![1; 99].into())), (Ok(40), 40));
    let long = Want { offset: 0, len: 3 * OWN, page: OWN };
    assert_eq!(said(long, |want| Ok(Piece::zeros(want.len))), (Ok(OWN), 0));
}

#[test]
fn a_source_that_fails_is_an_error_with_a_cause_and_uses_no_memory() {
    let io = |cause: &str| Err(SourceError::Io { offset: 20, cause: cause.to_owned() });
    assert_eq!(said(pages(20, 2), |_| panic!("on purpose")), (io("the source panicked"), 0));
    assert_eq!(
        said(pages(20, 2), |_| Ok(vec![1; 9].into())),
        (io("it gave 9 bytes of a page of 10"), 0)
    );
    let cut = || Err(SourceError::Truncated { offset: 20, len: 3 });
    assert_eq!(
        said(pages(20, 2), |want| Err(SourceError::Truncated { offset: want.offset, len: 3 })),
        (cut(), 0)
    );
}

/// Reports what is announced, and panics on some of it.
struct Listens(mpsc::Sender<String>);

impl Source for Listens {
    fn len(&self) -> u64 {
        1 << 20
    }
    fn lookup<'a>(&'a self, want: Want, _: &'a Scratch) -> Chunk<'a> {
        Chunk::Absent(want.len)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        self.0.send(format!("fetch {} {}", want.offset, want.len)).unwrap();
        Ok(Piece::zeros(want.len))
    }
    fn prepare(&self, offset: u64, len: u64) {
        self.0.send(format!("prepare {offset} {len}")).unwrap();
    }
    fn will_need(&self, offset: u64, len: u64) {
        assert_ne!(offset, 13, "on purpose");
        self.0.send(format!("need {offset} {len}")).unwrap();
    }
    fn will_need_around(&self, offset: u64, len: u64) {
        self.0.send(format!("around {offset} {len}")).unwrap();
    }
}

#[test]
fn a_source_hears_what_is_announced_and_what_a_fault_waits_for() {
    let (heard, hears) = mpsc::channel();
    let client = Fetcher::new(Arc::new(Listens(heard))).client(|| {});
    let next = || hears.recv_timeout(DEADLINE).unwrap();
    client.announce(vec![5..8, 20..30]);
    assert_eq!([next(), next()], ["need 5 3", "need 20 10"]);
    let (tx, rx) = mpsc::channel();
    let ask = |offset, urgency| {
        let tx = tx.clone();
        let done = Box::new(move |_| tx.send(()).unwrap());
        client.try_submit(FetchJob { want: pages(offset, 1), done }, urgency).unwrap()
    };
    let _background = ask(40, Background);
    assert_eq!(next(), "fetch 40 10");
    let _fault = ask(50, Demand);
    assert_eq!([next(), next()], ["around 50 10", "fetch 50 10"]);
    // More panics than there are threads: each of them goes on.
    (0..2 * MOST.background).for_each(|_| client.announce(vec![13..14, 13..15]));
    let _background = ask(60, Background);
    assert_eq!(next(), "fetch 60 10");
    assert_eq!((0..3).filter_map(|_| rx.recv_timeout(DEADLINE).ok()).count(), 3);
}

#[test]
fn a_source_is_made_ready_once_whoever_asks_first() {
    let (heard, hears) = mpsc::channel();
    let fetcher = Fetcher::new(Arc::new(Listens(heard)));
    let next = || hears.recv_timeout(DEADLINE).unwrap();
    fetcher.expect_huge_pages();
    assert_eq!([next(), next()], ["prepare 0 524288", "prepare 524288 524288"]);
    fetcher.expect_huge_pages();
    let client = fetcher.client(|| {});
    client.prepare();
    client.announce(vec![5..8, 20..30]);
    assert_eq!([next(), next()], ["need 5 3", "need 20 10"]);
}

#[test]
fn what_a_guest_had_queued_and_left_is_made_ready_for_the_next() {
    let mut requests = requests::Requests::default();
    for _ in 0..2 {
        let client = requests.join();
        requests.prepare(client);
        assert!(requests.leave(client).is_empty());
        assert!(requests.start().is_none());
    }
    let client = requests.join();
    requests.prepare(client);
    requests.prepare(client);
    let (turn, work) = requests.start().unwrap();
    assert_eq!(work, requests::Work::Prepare);
    requests.finish(turn);
    assert!(requests.start().is_none());
}

#[test]
fn announcements_that_nobody_comes_to_do_not_pile_up() {
    let stage = Stage::new();
    let client = stage.client();
    let _busy: Vec<_> = (0..10).map(|at| stage.ask(&client, at * 10, Background)).collect();
    (0..1000).for_each(|at| client.announce(vec![at..at + 1, at + 2..at + 3]));
    assert!(stage.fetcher.threads.0.lock().requests.queued() < 30);
    stage.gates.open((0..10).map(|at| at * 10));
    (0..10).for_each(|_| drop(stage.next_answer()));
}

#[test]
fn threads_end_with_the_last_client() {
    let stage = Stage::new();
    let shared = Arc::downgrade(&stage.fetcher.threads.0);
    let client = stage.client();
    let Stage { fetcher, gates, answers: (answer, answers), .. } = stage;
    drop(fetcher);
    let done = Box::new(move |got| answer.send((0, got)).unwrap());
    let ticket = client.try_submit(FetchJob { want: pages(10, 1), done }, Demand).unwrap();
    gates.open([10]);
    assert!(answers.recv_timeout(DEADLINE).unwrap().1.is_ok());
    drop((ticket, client));
    let start = std::time::Instant::now();
    while shared.upgrade().is_some() {
        assert!(start.elapsed() < DEADLINE, "a thread without work goes on");
        std::thread::yield_now();
    }
}
