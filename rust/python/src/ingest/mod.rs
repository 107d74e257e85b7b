//! Dask's objects in, numbers and templates out.
