//! Values as bytes: pickle 5 with buffers out of band.
