//! The serializer that puts metadata in its place.

use std::fmt::Display;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::ser::{Impossible, SerializeStruct};
use serde::{Serialize, Serializer};

use super::form;
use crate::object::Kind;

/// An object to be written as what it is.
pub fn whole<K: Kind>(object: &K) -> impl Serialize + '_ {
    Object {
        object,
        managers: true,
    }
}

/// An object to be written without what is said of its managers.
pub fn unmanaged<K: Kind>(object: &K) -> impl Serialize + '_ {
    Object {
        object,
        managers: false,
    }
}

struct Object<'a, K> {
    object: &'a K,
    managers: bool,
}

impl<K: Kind> Serialize for Object<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(Outermost {
            serializer,
            meta: self.object.metadata(),
            managers: self.managers,
        })
    }
}

/// Takes the outermost struct; what is in it goes to the serializer itself, but for the metadata.
struct Outermost<'a, S> {
    serializer: S,
    meta: &'a ObjectMeta,
    managers: bool,
}

/// The outermost struct.
struct Fields<'a, S> {
    fields: S,
    meta: &'a ObjectMeta,
    managers: bool,
}

impl<S: SerializeStruct> SerializeStruct for Fields<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        if key == "metadata" {
            self.fields.serialize_field(key, &form(self.meta, self.managers))
        } else {
            self.fields.serialize_field(key, value)
        }
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), Self::Error> {
        self.fields.skip_field(key)
    }

    fn end(self) -> Result<Self::Ok, Self::Error> {
        self.fields.end()
    }
}

fn not_an_object<T, E: serde::ser::Error>() -> Result<T, E> {
    Err(E::custom("an object of the API must be a struct"))
}

macro_rules! refuse {
    ($($method:ident($($type:ty),*);)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<Self::Ok, Self::Error> {
            not_an_object()
        })*
    };
}

impl<'a, S: Serializer> Serializer for Outermost<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Impossible<S::Ok, S::Error>;
    type SerializeTuple = Impossible<S::Ok, S::Error>;
    type SerializeTupleStruct = Impossible<S::Ok, S::Error>;
    type SerializeTupleVariant = Impossible<S::Ok, S::Error>;
    type SerializeMap = Impossible<S::Ok, S::Error>;
    type SerializeStruct = Fields<'a, S::SerializeStruct>;
    type SerializeStructVariant = Impossible<S::Ok, S::Error>;

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, Self::Error> {
        Ok(Fields {
            fields: self.serializer.serialize_struct(name, len)?,
            meta: self.meta,
            managers: self.managers,
        })
    }

    refuse! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<Self::Ok, Self::Error> {
        not_an_object()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Self::Ok, Self::Error> {
        not_an_object()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<Self::Ok, Self::Error> {
        not_an_object()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Self::Ok, Self::Error> {
        not_an_object()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Self::Error> {
        not_an_object()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Self::Error> {
        not_an_object()
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Self::Error> {
        not_an_object()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Self::Error> {
        not_an_object()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Self::Error> {
        not_an_object()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Self::Error> {
        not_an_object()
    }
}
