# Asks MongoDB for the suites: a request per line as JSON, an answer per line. Values come back as the texts that the other clients show.
import sys, json, datetime, uuid
import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.binary import Binary, UuidRepresentation
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.datetime_ms import DatetimeMS

def shown(value, inner=False):
    if value is None: return "null" if inner else None
    if isinstance(value, bool): return "true" if value else "false"
    if isinstance(value, Int64): return str(int(value))
    if isinstance(value, int): return "int32:" + str(value)
    if isinstance(value, float): return repr(value)
    if isinstance(value, str): return json.dumps(value, ensure_ascii=False) if inner else value
    if isinstance(value, Decimal128): return "decimal:" + format(value.to_decimal(), "f")
    if isinstance(value, uuid.UUID): return "uuid:" + str(value)
    if isinstance(value, bytes): return "x" + value.hex().upper()
    if isinstance(value, list): return "[" + ",".join(shown(v, True) for v in value) + "]"
    if isinstance(value, dict): return "{" + ",".join(json.dumps(k) + ":" + shown(v, True) for k, v in value.items()) + "}"
    return "date:" + str(int(value))

EPOCH = datetime.datetime(1970, 1, 1)
def told(value, inner=True):
    """A value as the page of types has it; the type stands in the column's heading."""
    if isinstance(value, Decimal128): return format(value.to_decimal(), "f")
    if isinstance(value, uuid.UUID): return '"' + str(value) + '"' if inner else str(value)
    if isinstance(value, list): return "[" + ",".join(told(v) for v in value) + "]"
    if isinstance(value, dict): return "{" + ",".join(json.dumps(k, ensure_ascii=False) + ":" + told(v) for k, v in value.items()) + "}"
    if isinstance(value, DatetimeMS):
        try: text = (EPOCH + datetime.timedelta(milliseconds=int(value))).isoformat(timespec="milliseconds") + "Z"
        except OverflowError: return str(int(value)) + " ms"
        return '"' + text + '"' if inner else text
    return shown(value, inner)

def kind(value):
    for of, name in [(bool, "bool"), (Int64, "long"), (int, "int"), (float, "double"), (str, "string"), (Decimal128, "decimal"),
        ((uuid.UUID, bytes), "binData"), (list, "array"), (dict, "object"), (DatetimeMS, "date")]:
        if isinstance(value, of): return name

OPTIONS = CodecOptions(uuid_representation=UuidRepresentation.STANDARD, datetime_conversion=DatetimeConversion.DATETIME_MS)

def answer(request, client):
    database = client.get_database(request["database"], codec_options=OPTIONS)
    what = request["do"]
    if what == "make":
        database.create_collection(request["table"])
        for unique in request["unique"]:
            # One index over all documents, tombstones among them, would take one of those only.
            database[request["table"]].create_index([(name, 1) for name in unique], unique=True, sparse=True)
        return None
    elif what == "rows":
        filter = {} if request["all"] else {"_gravity_deleted": {"$exists": False}}
        return [[shown(d.get(c)) for c in request["columns"]] for d in database[request["table"]].find(filter)]
    elif what == "values":
        found = [(d["id"], d["v"]) for d in database[request["table"]].find({"_gravity_deleted": {"$exists": False}})]
        return {
            "values": [[i, None if v is None else told(v, request["json"])] for i, v in found],
            "kinds": ",".join(sorted({kind(v) for _, v in found if v is not None})),
        }
    elif what == "command":
        return json.loads(json.dumps(database.command(request["command"]), default=str))
    elif what == "drop":
        client.drop_database(request["database"])
        return None
    elif what == "hello":
        hello = database.command({"hello": 1})
        return {"replica_set": "setName" in hello or hello.get("msg") == "isdbgrid", "ferretdb": "ferretdbVersion" in database.command({"buildInfo": 1})}

client = None
for line in sys.stdin:
    request = json.loads(line)
    client = client or pymongo.MongoClient(request["uri"], serverSelectionTimeoutMS=10000)
    print(json.dumps(answer(request, client)), flush=True)
