//! On a wire that loses, repeats, reorders and damages packets every request is answered by who it is for.

use std::{
    io::Write as _,
    ops::AddAssign,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use lab::{Agent, Connection, Family, Lab, Odds, Shuffler, Software};

use crate::{
    exchange::{By, Number, Whose, answer, connect},
    scale::{Scale, seed},
    scene::{Counted, LOCAL, PORT, alice, alone_in_lab},
};

const ODDS: Odds = Odds { lost: 0.01, repeated: 0.01, overtaken: 0.02, damaged: 0.001 };

/// Who ask at once; they mostly wait for what was lost.
const CLIENTS: usize = 32;

/// Requests on one connection, at most.
const LONGEST: usize = 20;

#[test]
fn a_bad_wire_misroutes_no_request() {
    alone_in_lab(|lab| {
        let requests = Scale::chosen().requests;
        let seed = seed();
        let app = Software::Go.start(lab, &lab.pod, "app", PORT);
        let alice_app = Software::Go.start(lab, &lab.dev, "alice", LOCAL);
        let agent = Agent::start(lab);
        let alice = alice(lab, &agent);
        let wire = Shuffler::before(lab, &lab.client, "client", ODDS, seed);
        let start = Instant::now();
        let sum = Mutex::new(Answers::default());
        lab.client.netns.run(|| {
            thread::scope(|scope| {
                for client in 0..CLIENTS {
                    let sum = &sum;
                    scope.spawn(move || {
                        let rng = Rng::with_seed(seed.wrapping_add(client as u64));
                        let mut client = Client { lab, rng, answers: Answers::default() };
                        client.ask(requests / CLIENTS);
                        *sum.lock().expect("nobody panicked") += client.answers;
                    });
                }
            });
        });
        let answers = sum.into_inner().expect("nobody panicked");
        let duration = start.elapsed();
        let shuffled = wire.end();
        let counted = Counted::by(&agent);
        println!("{answers:?} in {:.1} s; {shuffled:?}; {counted}", duration.as_secs_f64());
        // What is the app's never gets to alice: see `Client`. What is hers gets to the app only where the agent was not in time, and
        // where it overtakes an answer. Both are counted.
        let left_to_the_app = |names: &[&str]| names.iter().map(|name| counted.of(name)).sum::<u64>();
        let late = left_to_the_app(&["hold_expired", "given_back", "agent_silent"]);
        let in_doubt = left_to_the_app(&["refused_at_boundary", "hold_failed", "lost_sight"]);
        let [first, later, overtaking] =
            [answers.first, answers.later, answers.overtaking].map(|by| by[By::App as usize]);
        assert!(first + later <= late, "each of alice's that overtakes nothing is hers");
        assert!(overtaking <= late + in_doubt, "every one of alice's that got to the app is counted");
        for shuffled in &shuffled {
            assert!(shuffled.fits_a_wire(), "{shuffled:?}");
            assert!(shuffled.lost > 0 && shuffled.repeated > 0 && shuffled.overtaken > 0, "{shuffled:?}");
        }
        drop((alice, agent, app, alice_app));
    });
}

/// What was asked and who answered.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    connections: usize,
    live: usize,
    /// With the name that is looked for, for nobody here.
    others: usize,
    /// Several at once.
    pipelined: usize,
    /// The first request of its connection, by the app and by alice.
    first: [u64; 2],
    /// A later one, likewise.
    later: [u64; 2],
    /// A request of alice's right behind one of the app's that is not answered yet, likewise.
    overtaking: [u64; 2],
    longest: Duration,
}

impl AddAssign for Answers {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.live += other.live;
        self.others += other.others;
        self.pipelined += other.pipelined;
        for who in 0..2 {
            self.first[who] += other.first[who];
            self.later[who] += other.later[who];
            self.overtaking[who] += other.overtaking[who];
        }
        self.longest = self.longest.max(other.longest);
    }
}

struct Client<'a> {
    lab: &'a Lab,
    rng: Rng,
    answers: Answers,
}

impl Client<'_> {
    fn ask(&mut self, requests: usize) {
        let mut left = requests;
        while left > 0 {
            let on_this = self.rng.usize(1..=LONGEST.min(left));
            self.ask_on_one(on_this);
            left -= on_this;
        }
    }

    fn ask_on_one(&mut self, requests: usize) {
        let family = Family::BOTH[self.rng.usize(0..2)];
        let mut connection = connect(self.lab, family).expect("connect");
        self.answers.connections += 1;
        let mut asked = 0;
        while asked < requests {
            let start = Instant::now();
            asked += match self.rng.u8(0..100) {
                0..10 if requests - asked > 1 => self.pipeline(&mut connection, (requests - asked).min(4)),
                10..13 if requests - asked > 1 => self.overtake(&mut connection),
                13..18 => self.exchange(&mut connection, Whose::Other, asked),
                18..43 => self.exchange(&mut connection, Whose::Alice, asked),
                _ => self.exchange(&mut connection, Whose::Live, asked),
            };
            self.answers.longest = self.answers.longest.max(start.elapsed());
        }
    }

    /// A request and its answer, which has the same body.
    fn exchange(&mut self, connection: &mut Connection, whose: Whose, asked: usize) -> usize {
        let number = Number::next();
        let body = self.body();
        let request = self.request(whose, number, &body);
        let from = connection.local_address();
        let outcome = connection.try_send(&request).and_then(|()| answer(connection, number));
        let (by, answer) = outcome.unwrap_or_else(|error| {
            panic!("{whose:?} {number}, {} bytes, request {asked} of {from}: {error}", request.len())
        });
        assert!(answer.body == body, "the body of {number} ({} and {})", body.len(), answer.body.len());
        if whose == Whose::Alice && by == By::App {
            println!("{number}, request {asked} of {from}, {} bytes: answered by the app", request.len());
        }
        match whose {
            Whose::Live => self.answers.live += 1,
            Whose::Other => self.answers.others += 1,
            Whose::Alice if asked == 0 => self.answers.first[by as usize] += 1,
            Whose::Alice => self.answers.later[by as usize] += 1,
        }
        assert!(by == whose.server() || whose == Whose::Alice, "{whose:?} {number} of {from}: by {by:?}");
        1
    }

    /// Requests of the app's without waiting for answers, in one write or in several.
    fn pipeline(&mut self, connection: &mut Connection, most: usize) -> usize {
        let numbers: Vec<_> = (0..self.rng.usize(2..=most)).map(|_| Number::next()).collect();
        let requests: Vec<_> = numbers.iter().map(|number| Whose::Live.get(*number)).collect();
        if self.rng.bool() {
            connection.send(requests.concat());
        } else {
            requests.iter().for_each(|request| connection.send(request));
        }
        for number in &numbers {
            let answer = answer(connection, *number);
            let (by, _) = answer.unwrap_or_else(|error| panic!("{number} of {numbers:?}: {error}"));
            assert_eq!(by, By::App, "{number} of {numbers:?}");
        }
        self.answers.pipelined += numbers.len();
        numbers.len()
    }

    /// A request of alice's before the one before it is answered. Wherever it goes, answers keep their order.
    fn overtake(&mut self, connection: &mut Connection) -> usize {
        let numbers = [Number::next(), Number::next()];
        connection.send(Whose::Live.get(numbers[0]));
        connection.send(Whose::Alice.get(numbers[1]));
        let [(live, _), (alices, _)] = numbers.map(|number| {
            answer(connection, number).unwrap_or_else(|error| panic!("{number} of {numbers:?}: {error}"))
        });
        assert_eq!(live, By::App);
        self.answers.overtaking[alices as usize] += 1;
        2
    }

    fn request(&mut self, whose: Whose, number: Number, body: &[u8]) -> Vec<u8> {
        if body.is_empty() {
            return whose.get(number).into_bytes();
        }
        let chunked = self.rng.bool();
        let framing = if chunked {
            "X-Framing: chunked\r\nTransfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", body.len())
        };
        let header = whose.header();
        let mut request =
            format!("POST /answer?{number} HTTP/1.1\r\nHost: pod.test\r\n{header}\r\n{framing}\r\n\r\n")
                .into_bytes();
        if !chunked {
            request.extend(body);
            return request;
        }
        for chunk in body.chunks(self.rng.usize(1..=body.len())) {
            write!(request, "{:x}\r\n", chunk.len()).expect("a vector takes all");
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        request
    }

    /// Mostly none; some look like requests of alice's.
    fn body(&mut self) -> Vec<u8> {
        const LOOK_ALIKE: &[u8] = b"GET /answer?0 HTTP/1.1\r\nHost: pod.test\r\nx-dev: alice\r\n\r\n";
        let length = match self.rng.u8(0..100) {
            0..50 => 0,
            50..80 => self.rng.usize(1..1_000),
            80..95 => self.rng.usize(1_000..10_000),
            _ => self.rng.usize(10_000..100_000),
        };
        let mut body = LOOK_ALIKE.repeat(length.div_ceil(LOOK_ALIKE.len()));
        body.truncate(length);
        if self.rng.bool() {
            self.rng.fill(&mut body);
        }
        body
    }
}
