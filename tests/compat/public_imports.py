"""What published packages take from DataJoint's modules, one line each."""

LINES = """
from datajoint import FreeTable, Table, VirtualModule, U, config, logger
from datajoint import errors, s3
from datajoint.admin import kill, kill_quick, set_password
from datajoint.attribute_adapter import AttributeAdapter, get_adapter
from datajoint.blob import Blob, MatCell, MatStruct, pack, unpack
from datajoint.blob import *
from datajoint.condition import AndList, Top, make_condition
from datajoint.condition import assert_join_compatibility, extract_column_names
from datajoint.connection import Connection, conn
from datajoint.declare import attribute_parser, compile_foreign_key, foreign_key_parser
from datajoint.declare import is_foreign_key
from datajoint.dependencies import extract_master, topo_sort, unite_master_parts
from datajoint.diagram import Diagram
from datajoint.errors import BucketInaccessible, DataJointError, DuplicateError, IntegrityError
from datajoint.errors import _switch_adapted_types, _switch_filepath_types
from datajoint.errors import _support_adapted_types, _support_filepath_types
from datajoint.expression import Aggregation, AndList, Not, QueryExpression, U, Union
from datajoint.external import ExternalMapping, ExternalTable, subfold
from datajoint.expression import *
from datajoint.fetch import Fetch, Fetch1, is_key, key, to_dicts
from datajoint.hash import key_hash, uuid_from_buffer, uuid_from_file, uuid_from_stream
from datajoint.jobs import JobTable
from datajoint.logging import logger
from datajoint.preview import preview, repr_html
from datajoint.schemas import VirtualModule, list_schemas
from datajoint.settings import GLOBALCONFIG, LOCALCONFIG, config, default
from datajoint.table import FreeTable, Log, QueryExpression, Table
from datajoint.table import foreign_key_error_regexp, lookup_class_name
from datajoint.user_tables import *
from datajoint.user_tables import AutoPopulate, Part, TableMeta, UserTable
from datajoint.user_tables import supported_class_attrs, user_table_classes
from datajoint.utils import *
from datajoint.utils import ClassProperty, parse_sql, safe_copy, safe_write
from datajoint.utils import from_camel_case, get_master, to_camel_case, user_choice
from datajoint.version import __version__
import datajoint.hash
""".strip().splitlines()
"""Collected from Spyglass, IBL-pipeline, the Elements and their workflows, datajoint-utilities,
pharus, datajoint-link and datajoint-plus."""
