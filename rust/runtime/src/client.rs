//! The driver role: submits graphs, puts objects, waits for results, counts references. From any thread.
//!
//! The same for the user's program and for a task that computes; what differs is the [`Port`] behind it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagleray_core::driver::{Driver, Uses};
use eagleray_core::ids::{GraphId, ObjectId, PeerId};
use eagleray_core::message::{ActorName, GraphSpec};
use eagleray_store::StoreError;
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use crate::calls::{Batch, Call};
use crate::command::{Answer, Command, Ended};
use crate::link::{LinkError, MOST_INLINE};
use crate::look::{Look, Snapshot};
use crate::program::{Part, Program, Value};
use crate::session::Session;
use crate::shared::{Counters, Input, SessionError, WorkerInfo};
use crate::wire::{self, WireError};

/// Why something of the driver role failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The session has ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A worker's link to its node.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The node did not answer what it answers at once.
    #[error("the session did not answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
}

/// How a driver role reaches its node.
pub trait Port: Send + Sync {
    /// Sends commands, in order. They may be gathered until the next [`Port::wait`].
    fn send(&self, commands: Vec<Command>) -> Result<(), ClientError>;

    /// Sends first and last uses. They may come after calls that are sent later: what those read is held by others until
    /// last uses are told that are told after these.
    fn send_uses(&self, uses: Vec<Command>) -> Result<(), ClientError> {
        self.send(uses)
    }

    /// Sends a call, in its order among commands. It is to be one of a new graph with this number, or of the graph of
    /// calls before it. Gives its first task and whether the number is used; what is to be told before a new graph,
    /// `before` sends.
    fn call(
        &self,
        call: Call,
        id: &mut dyn FnMut() -> GraphId,
        before: &mut dyn FnMut() -> Vec<Command>,
    ) -> Result<ObjectId, ClientError> {
        let mut batch = Batch::new(id(), &call);
        let object = ObjectId { graph: batch.id(), index: batch.add(call) };
        let mut commands = before();
        commands.extend(commands_of(batch));
        self.send(commands)?;
        Ok(object)
    }

    /// Stores `len` bytes, which `write` fills in.
    fn store(&self, len: usize, write: &mut dyn FnMut(&mut [u8])) -> Result<Value, ClientError>;

    /// Waits for the answer to one of these questions, at most `limit`.
    fn wait(&self, tokens: &[u64], limit: Duration) -> Result<Option<Answer>, ClientError>;
}

/// What tells the head and the node of a graph of calls.
pub(crate) fn commands_of(mut batch: Batch) -> impl Iterator<Item = Command> {
    let uses = batch.take_uses();
    let (spec, program, part) = batch.close();
    let (graph, admit_upto) = (spec.id, spec.class.len() as u32);
    let submit = Command::Submit(Box::new(spec), Box::new(program));
    [submit, Command::Extend { graph, part, admit_upto }].into_iter().chain(uses)
}

fn inline(value: &Value) -> Option<Bytes> {
    match value {
        Value::Inline(bytes) => Some(bytes.clone()),
        Value::Sealed(_) => None,
    }
}

fn uses(driver: &mut Driver) -> Vec<Command> {
    let told = driver.take_uses().into_iter().map(|uses| match uses {
        Uses::Hold(objects) => Command::Hold(objects),
        Uses::Release(objects) => Command::Release(objects),
    });
    told.collect()
}

/// See the module.
pub struct Client {
    driver: Mutex<Driver>,
    port: Box<dyn Port>,
    /// Objects in use of which it is known that they are there, or have failed, and the values of those that came inline: they
    /// need not be asked for again. Locked after `driver`, if both are.
    known: Mutex<Known>,
}

/// What is known of objects in use that have ended. See [`Client::known`].
pub type Known = FxHashMap<ObjectId, Option<Bytes>>;

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl Client {
    /// The role of `peer`.
    pub fn new(peer: PeerId, port: Box<dyn Port>) -> Self {
        Self { driver: Mutex::new(Driver::new(peer)), port, known: Mutex::default() }
    }

    /// Sends what `make` says, after the uses it must follow.
    fn command<T>(&self, make: impl FnOnce(&mut Driver) -> (Option<Command>, T)) -> Result<T, ClientError> {
        let mut driver = self.driver.lock();
        let (command, result) = make(&mut driver);
        let mut commands = uses(&mut driver);
        // Still under the lock: what two threads send must not change places.
        match command {
            None if commands.is_empty() => {}
            None => self.port.send_uses(commands)?,
            Some(command) => {
                commands.push(command);
                self.port.send(commands)?;
            }
        }
        Ok(result)
    }

    /// Whose role it is.
    pub fn peer(&self) -> PeerId {
        self.driver.lock().peer()
    }

    /// A number for a graph that will be submitted.
    pub fn next_graph(&self) -> GraphId {
        self.driver.lock().next_graph()
    }

    /// Submits a graph. Its outputs are held once each from now on.
    pub fn submit(&self, spec: GraphSpec, program: Program) -> Result<(), ClientError> {
        self.command(|driver| {
            driver.submitted(spec.id, &spec.outputs);
            (Some(Command::Submit(Box::new(spec), Box::new(program))), ())
        })
    }

    /// Submits a call. The results that are wanted of it are held once each from now on. Gives its first task.
    pub fn call(&self, call: Call) -> Result<ObjectId, ClientError> {
        let driver = RefCell::new(self.driver.lock());
        let wanted = call.wanted.clone();
        let mut id = || driver.borrow_mut().next_graph();
        let first = self.port.call(call, &mut id, &mut || uses(&mut driver.borrow_mut()))?;
        let wanted: Vec<u32> = wanted.map(|task| first.index + task).collect();
        driver.borrow_mut().submitted(first.graph, &wanted);
        Ok(first)
    }

    /// Submits a call that makes an actor, a graph of its own, and says of it what others are to find. The actor is held once
    /// from now on.
    pub fn create_actor(&self, call: Call, meta: Bytes) -> Result<ObjectId, ClientError> {
        let mut driver = self.driver.lock();
        let mut batch = Batch::new(driver.next_graph(), &call);
        batch.say_of_actor(meta);
        let actor = ObjectId { graph: batch.id(), index: batch.add(call) };
        let mut commands = uses(&mut driver);
        commands.extend(commands_of(batch));
        self.port.send(commands)?;
        driver.submitted(actor.graph, &[actor.index]);
        Ok(actor)
    }

    /// Sends more of a graph's program; tasks at positions below `admit_upto` may run then.
    pub fn extend(&self, graph: GraphId, part: Part, admit_upto: u32) -> Result<(), ClientError> {
        self.command(|_| (Some(Command::Extend { graph, part, admit_upto }), ()))
    }

    /// Stores `len` bytes, which `write` fills in.
    pub fn store(&self, len: usize, write: &mut dyn FnMut(&mut [u8])) -> Result<Value, ClientError> {
        self.port.store(len, write)
    }

    /// The value of a task that is not to be run. The objects that it names are held as long as it exists.
    pub fn supply(&self, object: ObjectId, value: Value, contained: Vec<ObjectId>) -> Result<(), ClientError> {
        self.command(|_| (Some(Command::Supply(object, value, contained)), ()))
    }

    /// Makes a stored value an object, held once. The objects that it names are held as long as it exists.
    pub fn put(&self, value: Value, contained: Vec<ObjectId>) -> Result<ObjectId, ClientError> {
        let inline = inline(&value);
        let object = self.command(|driver| {
            let object = driver.next_put();
            (Some(Command::Put(object, value, contained)), object)
        })?;
        self.known.lock().insert(object, inline);
        Ok(object)
    }

    /// The same for a constant of a graph.
    pub fn put_literal(&self, value: Value, contained: Vec<ObjectId>) -> Result<ObjectId, ClientError> {
        self.command(|driver| {
            let object = driver.next_literal();
            (Some(Command::Put(object, value, contained)), object)
        })
    }

    /// How many uses of some objects were counted here.
    pub fn uses(&self, objects: &[ObjectId]) -> Vec<u32> {
        let driver = self.driver.lock();
        objects.iter().map(|object| driver.count(*object)).collect()
    }

    /// One use more of an object.
    pub fn hold(&self, object: ObjectId) -> Result<(), ClientError> {
        self.command(|driver| (None, driver.hold(object)))
    }

    /// One use less.
    pub fn release(&self, objects: &[ObjectId]) -> Result<(), ClientError> {
        self.command(|driver| {
            for &object in objects {
                if driver.release(object) {
                    self.known.lock().remove(&object);
                }
            }
            (None, ())
        })
    }

    /// Objects in use of which it is known that they have ended: answers have said so, or they were put here.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// A use more that the head has made by itself.
    pub fn adopt(&self, object: ObjectId) -> Result<(), ClientError> {
        self.command(|driver| (None, driver.adopt(object)))
    }

    /// Sends first and last uses that have not been sent. What a worker reports must not overtake them: what its results name
    /// is held by it until they hold that themselves.
    pub fn flush_uses(&self) -> Result<(), ClientError> {
        self.command(|_| (None, ()))
    }

    /// Stops a graph.
    pub fn cancel(&self, graph: GraphId) -> Result<(), ClientError> {
        self.command(|_| (Some(Command::Cancel(graph)), ()))
    }

    /// Stops one task, of whatever peer: of a computation, all of it. `force` ends its worker, should it run; `recursive`
    /// stops what it has submitted, too.
    pub fn cancel_task(&self, object: ObjectId, force: bool, recursive: bool) -> Result<(), ClientError> {
        self.command(|_| (Some(Command::CancelTask { object, force, recursive }), ()))
    }

    /// Ends an actor. With `restart` it is made again, if it may be.
    pub fn kill_actor(&self, actor: ObjectId, restart: bool) -> Result<(), ClientError> {
        self.command(|_| (Some(Command::KillActor { actor, restart }), ()))
    }

    /// Looks for an actor by name. Returns its object, held once more, and what the program that made it says of it; `None`
    /// if there is no such actor. The node answers at once: [`ClientError::NoAnswer`] after `limit` means that it is stuck.
    pub fn find_actor(&self, name: ActorName, limit: Duration) -> Result<Option<(ObjectId, Bytes)>, ClientError> {
        let token = self.command(|driver| {
            let token = driver.next_token();
            (Some(Command::FindActor { token, name }), token)
        })?;
        let found = self.port.wait(&[token], limit)?.ok_or(ClientError::NoAnswer(limit))?;
        let Some((actor, value)) = found.ended.into_iter().next() else { return Ok(None) };
        self.adopt(actor)?;
        match value {
            Ok(Value::Inline(meta)) => Ok(Some((actor, meta))),
            _ => Err(LinkError::from(WireError::Inconsistent("an actor without what is said of it")).into()),
        }
    }

    /// The next part of what the task that runs makes bit by bit. A use of it goes over to the task's object.
    pub fn yield_part(&self, stream: ObjectId, index: u32, part: ObjectId) -> Result<(), ClientError> {
        let mut driver = self.driver.lock();
        let mut commands = uses(&mut driver);
        commands.push(Command::Yield { stream, index, part });
        if driver.release(part) {
            self.known.lock().remove(&part);
        }
        commands.append(&mut uses(&mut driver));
        // Still under the lock, as in `command`.
        self.port.send(commands)
    }

    /// Asks whether so many parts of what a task makes bit by bit were taken: the answer, which is empty, comes when they are.
    /// Returns the question's token.
    pub fn ask_ahead(&self, stream: ObjectId, taken: u32) -> Result<u64, ClientError> {
        self.command(|driver| {
            let token = driver.next_token();
            (Some(Command::Ahead { token, stream, taken }), token)
        })
    }

    /// Asks for a part of what a task makes bit by bit, to take it or to look. Returns the question's token. Of the part in
    /// the answer a use is to be [adopted](Client::adopt).
    pub fn ask_next(&self, stream: ObjectId, index: u32, take: bool) -> Result<u64, ClientError> {
        self.command(|driver| {
            let token = driver.next_token();
            (Some(Command::Next { token, stream, index, take }), token)
        })
    }

    /// How things stand: after all that was sent before, and what follows from it at once. [`ClientError::NoAnswer`] after
    /// `limit`, as in [`Client::find_actor`].
    pub fn inspect(&self, look: Look, limit: Duration) -> Result<Snapshot, ClientError> {
        let token = self.command(|driver| {
            let token = driver.next_token();
            (Some(Command::Inspect { token, look }), token)
        })?;
        let answer = self.port.wait(&[token], limit)?.ok_or(ClientError::NoAnswer(limit))?;
        match answer.ended.into_iter().next() {
            Some((_, Ok(Value::Inline(bytes)))) => Ok(wire::read_snapshot(bytes).map_err(LinkError::from)?),
            _ => Err(LinkError::from(WireError::Missing("snapshot")).into()),
        }
    }

    /// Asks for `need` of some objects, which are without duplicates. Returns the question's token.
    pub fn ask(&self, objects: Vec<ObjectId>, need: u32, fail_fast: bool) -> Result<u64, ClientError> {
        self.command(|driver| {
            let token = driver.next_token();
            (Some(Command::Await { token, objects, need, fail_fast }), token)
        })
    }

    /// Waits for the answer to a question about objects, at most `limit`.
    pub fn answer(&self, token: u64, limit: Duration) -> Result<Option<Ended>, ClientError> {
        let answer = self.first_answer(&[token], limit)?;
        Ok(answer.map(|answer| {
            self.learn(&answer.ended);
            answer.ended
        }))
    }

    /// Waits for the answer to one of several questions, at most `limit`. What it says of objects is to be
    /// [learned](Client::learn).
    pub fn first_answer(&self, tokens: &[u64], limit: Duration) -> Result<Option<Answer>, ClientError> {
        self.port.wait(tokens, limit)
    }

    /// Takes note of what an answer says of objects.
    pub fn learn(&self, ended: &Ended) {
        let driver = self.driver.lock();
        let mut known = self.known.lock();
        for (object, outcome) in ended.iter().filter(|(object, _)| driver.uses(*object)) {
            known.insert(*object, outcome.as_ref().ok().and_then(inline));
        }
    }

    /// Withdraws a question: it is answered soon, with what is there.
    pub fn withdraw(&self, token: u64) -> Result<(), ClientError> {
        self.command(|_| (Some(Command::Forget(token)), ()))
    }
}

/// The user's program: the node is in this process.
#[derive(Debug)]
struct LocalPort(Arc<Session>);

impl Port for LocalPort {
    fn send(&self, commands: Vec<Command>) -> Result<(), ClientError> {
        self.0.send_after_calls(commands, &mut self.0.shared().calls.lock())
    }

    fn send_uses(&self, uses: Vec<Command>) -> Result<(), ClientError> {
        let mut open = self.0.shared().calls.lock();
        match open.as_mut() {
            None => self.0.send_after_calls(uses, &mut open),
            Some(batch) => {
                batch.then(uses);
                Ok(())
            }
        }
    }

    fn call(
        &self,
        call: Call,
        id: &mut dyn FnMut() -> GraphId,
        before: &mut dyn FnMut() -> Vec<Command>,
    ) -> Result<ObjectId, ClientError> {
        let mut open = self.0.shared().calls.lock();
        if self.0.shared().seat.is_closed() {
            // Nobody will take what is open.
            return Err(self.0.shared().seat.ended().unwrap_or(SessionError::Ended).into());
        }
        if !open.as_ref().is_some_and(|batch| batch.takes(&call)) {
            self.0.send_after_calls(before(), &mut open)?;
            // It takes all that there is when it gets to it.
            self.0.send(Input::Calls)?;
            *open = Some(Batch::new(id(), &call));
        }
        let batch = open.as_mut().ok_or(SessionError::Ended)?;
        Ok(ObjectId { graph: batch.id(), index: batch.add(call) })
    }

    fn store(&self, len: usize, write: &mut dyn FnMut(&mut [u8])) -> Result<Value, ClientError> {
        if len <= MOST_INLINE {
            let mut bytes = vec![0; len];
            write(&mut bytes);
            return Ok(Value::Inline(Bytes::from(bytes)));
        }
        let arena = &self.0.shared().arena;
        let mut writer = arena.alloc(len as u64)?;
        write(writer.bytes());
        let location = writer.seal();
        let _announcing = self.0.shared().announcing.lock();
        for segment in arena.take_new_segments() {
            self.0.send(Input::Segment { id: segment.segment, size: segment.size, fd: segment.fd })?;
        }
        Ok(Value::Sealed(arena.local(&location).ok_or(StoreError::NotHere)?))
    }

    fn wait(&self, tokens: &[u64], limit: Duration) -> Result<Option<Answer>, ClientError> {
        Ok(self.0.wait(tokens, limit)?)
    }
}

impl Session {
    /// The driver role of the program that started this session.
    pub fn client(self: &Arc<Self>) -> Client {
        Client::new(PeerId::USER, Box::new(LocalPort(Arc::clone(self))))
    }

    /// Sends commands, and before them the calls that were not taken yet.
    fn send_after_calls(&self, commands: Vec<Command>, open: &mut Option<Batch>) -> Result<(), ClientError> {
        for command in open.take().into_iter().flat_map(commands_of).chain(commands) {
            self.send(Input::Command(command))?;
        }
        Ok(())
    }

    fn send(&self, input: Input) -> Result<(), SessionError> {
        self.shared().seat.send(input, false)
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        let mut counters = *self.shared().counters.lock();
        counters.wakeups += self.shared().seat.wakeups();
        counters
    }

    /// The workers there are and were.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.shared().workers.lock().clone()
    }
}
