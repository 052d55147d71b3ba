"""`croissant.json`: what a set is, for machines, in Croissant 1.1 with the fields of its vocabulary
for responsible AI (RAI 1.0).

It says what the data card says, column by column, and nothing that is not known. Nested columns are
left to the Parquet files.
"""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from pipeline.select.selection import Curation
from pipeline.sets.router import EXPORTS_FOLDER, schema_of
from schemas.json_values import JsonObject, JsonValue
from schemas.sets import SetManifest
from schemas.trace import Role

_CONTEXT: JsonObject = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES: Mapping[pa.DataType, str] = {
    pa.string(): "sc:Text",
    pa.bool_(): "sc:Boolean",
    pa.float32(): "cr:Float32",
    pa.int16(): "cr:Int16",
    pa.int32(): "cr:Int32",
    pa.uint8(): "cr:UInt8",
    pa.uint16(): "cr:UInt16",
}


def croissant_of(curation: Curation, manifest: SetManifest) -> JsonObject:
    """The whole file. Equal sets have equal ones."""
    recipe = curation.recipe
    configs = _configs(manifest)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.1",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": recipe.name or "a set",
        "description": recipe.about or "A training set of Thinking-while-Generating traces.",
        "version": f"0.0.0+{manifest.version}",
        "license": _licences(curation),
        "keywords": ["coppice", "thinking-while-generating", "synthetic"],
        **_responsible(curation),
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": f"files-{config}",
                "name": f"files-{config}",
                "encodingFormat": "application/x-parquet",
                "includes": [f"{key}-*.parquet" for key in keys],
            }
            for config, keys in configs.items()
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": config,
                "name": config,
                "field": list(_fields(config, schema_of(keys[0]))),
            }
            for config, keys in configs.items()
        ],
    }


def _configs(manifest: SetManifest) -> dict[str, list[str]]:
    """The streams of canonical rows by the card's configs."""
    configs: dict[str, list[str]] = {}
    for key in manifest.files:
        if not key.startswith(f"{EXPORTS_FOLDER}/"):
            configs.setdefault(key.rpartition("/")[0].rpartition("/")[2], []).append(key)
    return configs


def _fields(config: str, schema: pa.Schema) -> Iterator[JsonObject]:
    """The columns that are numbers or words, or lists of them."""
    for column in schema:
        is_list = pa.types.is_list(column.type)
        kind = _TYPES.get(column.type.value_type if is_list else column.type)
        if kind is not None:
            field: JsonObject = {
                "@type": "cr:Field",
                "@id": f"{config}/{column.name}",
                "name": column.name,
                "dataType": kind,
                "source": {
                    "fileSet": {"@id": f"files-{config}"},
                    "extract": {"column": column.name},
                },
            }
            yield field | ({"isArray": True, "arrayShape": "-1"} if is_list else {})


def _licences(curation: Curation) -> list[JsonValue]:
    """Of the prompts, as far as they are told."""
    origins = {origin.licence for shard in curation.shards for origin in shard.origins}
    return [*sorted(licence or "unknown" for licence in origins)] or ["unknown"]


def _responsible(curation: Curation) -> JsonObject:
    """What RAI asks for and a set knows of itself."""
    recipe = curation.recipe
    makers = sorted(
        {
            f"{verb} by {method.model.name} (digest {method.model.digest}) on the backend "
            f"{method.backend_of(role)}"
            for method in (run.manifest.config.method for run in curation.runs)
            for role, verb in (
                (Role.THINK, "thought"),
                (Role.REFLECT, "judged"),
                (Role.DRAW, "drawn"),
            )
        }
    )
    reasons = ", ".join(f"{reason} {num:,}" for reason, num in curation.funnel.removed.items())
    return {
        "rai:dataCollection": "Generated by models from prompts: a model thinks, draws a region, "
        f"looks at it, and may draw it again. {'; '.join(makers)}.",
        "rai:dataCollectionType": ["Synthetic: generated by models"],
        "rai:dataCollectionMissingData": "A null says that something does not apply, or was not "
        f"scored; {curation.funnel.num_dead:,} rollouts that died are left out.",
        "rai:dataCollectionRawData": "Traces of runs "
        + ", ".join(
            f"{run.run_id} (fingerprint {run.manifest.fingerprint})" for run in curation.runs
        ),
        "rai:dataPreprocessingProtocol": [
            f"Selected by the recipe in recipe.json (digest {curation.checked.digest}). Rows left "
            f"out, by reason: {reasons or 'none'}; decisions.parquet says it of each."
        ],
        "rai:dataAnnotationProtocol": ["Scored by programs and models; no person annotated."],
        "rai:machineAnnotationTools": list(recipe.scorers),
        "rai:dataBiases": [
            "Pictures and words are what the models named above make of the prompts, with their "
            "biases, and selection keeps what its scorers like."
        ],
        "rai:dataUseCases": ["Training models that think, judge and draw in turns."],
        "rai:dataLimitations": [
            "No person has looked at every picture. A filter that has not looked says so in its "
            "scores; what is not known of licences is called unknown."
        ],
        "rai:personalSensitiveInformation": [
            "None is sought. Prompts come from the files named in the card, which may name people."
        ],
    }
