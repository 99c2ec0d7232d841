"""The public names that each of DataJoint's modules defines: ``import *`` and `dir` give them."""

from __future__ import annotations

_NAMES = """
attribute_adapter: AttributeAdapter get_adapter
autopopulate: AutoPopulate
blob: Blob MatCell MatStruct bypass_serialization pack unpack use_32bit_dims
builtin_codecs.attach: AttachCodec
builtin_codecs.blob: BlobCodec
builtin_codecs.filepath: FilepathCodec
builtin_codecs.hash: HashCodec
builtin_codecs.npy: NpyCodec NpyRef
builtin_codecs.object: ObjectCodec
builtin_codecs.schema: SchemaCodec
codecs: Codec get_codec is_codec_registered list_codecs resolve_dtype unregister_codec
condition: AndList Not Top assert_join_compatibility extract_column_names make_condition
connection: Connection conn
declare: EXTERNAL_TABLE_ROOT MAX_TABLE_NAME_LENGTH UUID_DATA_TYPE attribute_parser
  foreign_key_parser is_foreign_key
diagram: Diagram
expression: AndList Aggregation Not QueryExpression Top U Union
external: ExternalMapping ExternalTable subfold
fetch: Fetch Fetch1 is_key key to_dicts
gc: GarbageCollector
hash: key_hash uuid_from_buffer uuid_from_file uuid_from_stream
heading: Attribute Heading default_attribute_properties
jobs: ERROR_MESSAGE_LENGTH Job JobTable TRUNCATION_APPENDIX
logging: logger
objectref: IntegrityError ObjectRef
preview: preview repr_html
provenance: PROV_ATTRIBUTE
schemas: Schema VirtualModule list_schemas virtual_schema
spark: SparkAdapter
staged_insert: StagedInsert
storage_adapter: StorageAdapter get_storage_adapter
table: FreeTable Log QueryExpression Table ValidationResult foreign_key_error_regexp
  lookup_class_name
user_tables: Compute Computed Entry Imported Ingest Lookup Manual Part TableMeta UserTable is_tier
  supported_class_attrs user_table_classes
utils: ClassProperty from_camel_case get_master is_camel_case parse_sql safe_copy safe_write
  to_camel_case user_choice
"""

PUBLIC_NAMES = {
    module: tuple(names.split())
    for module, _, names in (
        line.partition(":") for line in _NAMES.replace("\n  ", " ").strip().splitlines()
    )
}
"""The names by module; of both eras, as far as they are here."""
