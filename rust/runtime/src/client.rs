//! The driver role: submits graphs, puts objects, waits for results, counts references. From any thread.
//!
//! The same for the user's program and for a task that computes; what differs is the [`Port`] behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagleray_core::driver::{Driver, Uses};
use eagleray_core::ids::{GraphId, ObjectId, PeerId};
use eagleray_core::message::{ActorName, GraphSpec};
use eagleray_store::StoreError;
use parking_lot::Mutex;

use crate::command::{Answer, Command, Ended};
use crate::link::{LinkError, MOST_INLINE};
use crate::program::{Part, Program, Value};
use crate::session::Session;
use crate::shared::{Counters, Input, SessionError, Snapshot, WorkerInfo};
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

    /// Stores `len` bytes, which `write` fills in.
    fn store(&self, len: usize, write: &mut dyn FnMut(&mut [u8])) -> Result<Value, ClientError>;

    /// Waits for the answer to one of these questions, at most `limit`.
    fn wait(&self, tokens: &[u64], limit: Duration) -> Result<Option<Answer>, ClientError>;
}

/// See the module.
pub struct Client {
    driver: Mutex<Driver>,
    port: Box<dyn Port>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("driver", &self.driver).finish_non_exhaustive()
    }
}

/// What tells of uses.
fn told(uses: Uses) -> Command {
    match uses {
        Uses::Hold(objects) => Command::Hold(objects),
        Uses::Release(objects) => Command::Release(objects),
    }
}

impl Client {
    /// The role of `peer`.
    pub fn new(peer: PeerId, port: Box<dyn Port>) -> Self {
        Self { driver: Mutex::new(Driver::new(peer)), port }
    }

    /// Sends what `make` says, after the uses it must follow.
    fn command<T>(&self, make: impl FnOnce(&mut Driver) -> (Option<Command>, T)) -> Result<T, ClientError> {
        let mut driver = self.driver.lock();
        let (command, result) = make(&mut driver);
        let commands: Vec<Command> = driver.take_uses().into_iter().map(told).chain(command).collect();
        if !commands.is_empty() {
            // Still under the lock: what two threads send must not change places.
            self.port.send(commands)?;
        }
        Ok(result)
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
        self.command(|driver| {
            let object = driver.next_put();
            (Some(Command::Put(object, value, contained)), object)
        })
    }

    /// One use more of an object.
    pub fn hold(&self, object: ObjectId) -> Result<(), ClientError> {
        self.command(|driver| (None, driver.hold(object)))
    }

    /// One use less.
    pub fn release(&self, objects: &[ObjectId]) -> Result<(), ClientError> {
        self.command(|driver| (None, objects.iter().for_each(|object| driver.release(*object))))
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
        let found = self.answer(token, limit)?.ok_or(ClientError::NoAnswer(limit))?;
        let Some((actor, value)) = found.into_iter().next() else { return Ok(None) };
        self.adopt(actor)?;
        match value {
            Ok(Value::Inline(meta)) => Ok(Some((actor, meta))),
            _ => Err(LinkError::from(WireError::Inconsistent("an actor without what is said of it")).into()),
        }
    }

    /// The next part of what the task that runs makes bit by bit. A use of it goes over to the task's object.
    pub fn yield_part(&self, stream: ObjectId, index: u32, part: ObjectId) -> Result<(), ClientError> {
        let mut driver = self.driver.lock();
        let mut commands: Vec<Command> = driver.take_uses().into_iter().map(told).collect();
        commands.push(Command::Yield { stream, index, part });
        driver.release(part);
        commands.extend(driver.take_uses().into_iter().map(told));
        // Under the lock, as in `command`.
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

    /// Asks for a part of what a task makes bit by bit. Returns the question's token. Of the part in the answer a use is to be
    /// [adopted](Client::adopt).
    pub fn ask_next(&self, stream: ObjectId, index: u32) -> Result<u64, ClientError> {
        self.command(|driver| {
            let token = driver.next_token();
            (Some(Command::Next { token, stream, index }), token)
        })
    }

    /// How things stand: after all that was sent before, and what follows from it at once. [`ClientError::NoAnswer`] after
    /// `limit`, as in [`Client::find_actor`].
    pub fn inspect(&self, limit: Duration) -> Result<Snapshot, ClientError> {
        let token = self.command(|driver| {
            let token = driver.next_token();
            (Some(Command::Inspect(token)), token)
        })?;
        let answer = self.answer(token, limit)?.ok_or(ClientError::NoAnswer(limit))?;
        match answer.into_iter().next() {
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

    /// Waits for the answer to a question, at most `limit`.
    pub fn answer(&self, token: u64, limit: Duration) -> Result<Option<Ended>, ClientError> {
        Ok(self.port.wait(&[token], limit)?.map(|answer| answer.ended))
    }

    /// Waits for the answer to one of several questions, at most `limit`.
    pub fn first_answer(&self, tokens: &[u64], limit: Duration) -> Result<Option<Answer>, ClientError> {
        self.port.wait(tokens, limit)
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
        for command in commands {
            self.0.send(Input::Command(command))?;
        }
        Ok(())
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
        Ok(self.0.shared().wait(tokens, limit)?)
    }
}

impl Session {
    /// The driver role of the program that started this session.
    pub fn client(self: &Arc<Self>) -> Client {
        Client::new(PeerId::USER, Box::new(LocalPort(Arc::clone(self))))
    }

    fn send(&self, input: Input) -> Result<(), SessionError> {
        self.shared().input.send(input).map_err(|_| self.shared().ended().unwrap_or(SessionError::Ended))
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        let mut counters = *self.shared().counters.lock();
        counters.wakeups += self.shared().driver_wakeups();
        counters
    }

    /// The workers there are and were.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.shared().workers.lock().clone()
    }
}
