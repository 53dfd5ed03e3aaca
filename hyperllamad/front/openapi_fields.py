"""What fields may hold where a Struct does not say: it keeps them as they come, or in another form than clients send.

Keys are `Shape.field` or, for parts of a request, `module.Struct.field`; a bare field name holds wherever it is read.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
_TEXT_OR_TEXTS: Schema = {"anyOf": [{"type": "string"}, _TEXTS]}
_OBJECT: Schema = {"type": "object"}
_FUNCTION: Schema = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "description": {"type": "string"}, "parameters": _OBJECT},
    "required": ["name"],
}
_TOOLS: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "function"}, "function": _FUNCTION},
        "required": ["type", "function"],
    },
}
_TEXT_PART: Schema = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_IMAGE_PART: Schema = {
    "type": "object",
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {
            "type": "object",
            "properties": {"url": {"type": "string", "description": "A data: URI; nothing is fetched."}},
            "required": ["url"],
        },
    },
    "required": ["type", "image_url"],
}
_BLOCKS: Schema = {
    "type": "array",
    "items": {
        "anyOf": [
            _TEXT_PART,
            {
                "type": "object",
                "properties": {"type": {"enum": ["image", "tool_use", "tool_result", "thinking"]}},
                "required": ["type"],
                "description": "As in Anthropic's reference.",
            },
        ]
    },
}
_EFFORTS = ["none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max"]
_TOOL_CHOICE: Schema = {
    "anyOf": [
        {"enum": ["none", "auto", "required"]},
        {
            "type": "object",
            "properties": {
                "type": {"const": "function"},
                "function": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            },
            "required": ["type", "function"],
        },
    ]
}

FIELDS: dict[str, Schema] = {
    "keep_alive": {
        "type": ["number", "string"],
        "pattern": r"^[-+]?([0-9]+(\.[0-9]*)?(h|m|s|ms|us|ns))+$",
        "description": 'Seconds, or "5m"; negative = for ever.',
    },
    "stop": _TEXT_OR_TEXTS,
    "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
    "n": {"type": "integer", "minimum": 1, "maximum": 128},
    "logit_bias": {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]+$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        "description": "By token id.",
    },
    "think": {"enum": [True, False, "low", "medium", "high", "max"]},
    "format": {"anyOf": [{"enum": ["json", ""]}, {"type": "object", "description": "A JSON schema."}]},
    "EmbedRequest.input": _TEXT_OR_TEXTS,
    "EmbedRequest.encoding_format": {"enum": ["float", "base64"]},
    "RerankRequest.documents": {
        "type": "array",
        "minItems": 1,
        "items": {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
            ]
        },
    },
    "RerankRequest.query": {"type": "string", "minLength": 1},
    "RerankRequest.top_n": {"type": "integer", "minimum": 1},
    "CreateRequest.license": _TEXT_OR_TEXTS,
    "ChatRequest.tools": _TOOLS,
    "ChatCompletionRequest.messages": {
        "type": "array",
        "minItems": 1,
        "items": {"$ref": "#/components/schemas/openai_requests.Message"},
    },
    "ChatCompletionRequest.tools": _TOOLS,
    "ChatCompletionRequest.tool_choice": _TOOL_CHOICE,
    "ChatCompletionRequest.reasoning_effort": {"enum": _EFFORTS},
    "ChatCompletionRequest.reasoning": {"type": "object", "properties": {"effort": {"enum": _EFFORTS}}},
    "ChatCompletionRequest.response_format": {
        "type": "object",
        "properties": {
            "type": {"enum": ["text", "json_object", "json_schema"]},
            "json_schema": {"type": "object", "properties": {"name": {"type": "string"}, "schema": _OBJECT}},
        },
    },
    "openai_requests.Message.content": {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": [_TEXT_PART, _IMAGE_PART]}}]
    },
    "openai_requests.ToolCall.function": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "arguments": {"type": "string", "description": "The JSON text of an object."},
        },
    },
    "ResponsesRequest.input": {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "object", "description": "Items as in OpenAI's reference."}},
        ]
    },
    "ResponsesRequest.tool_choice": {"anyOf": [{"enum": ["none", "auto", "required"]}, _OBJECT]},
    "MessagesRequest.max_tokens": {"type": "integer", "minimum": 1},
    "MessagesRequest.messages": {
        "type": "array",
        "minItems": 1,
        "items": {"$ref": "#/components/schemas/anthropic_requests.Message"},
    },
    "MessagesRequest.system": {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}]},
    "MessagesRequest.tools": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "description": {"type": "string"}, "input_schema": _OBJECT},
            "required": ["name"],
        },
    },
    "MessagesRequest.tool_choice": {
        "type": "object",
        "properties": {
            "type": {"enum": ["auto", "any", "none", "tool"]},
            "name": {"type": "string"},
            "disable_parallel_tool_use": {"type": "boolean"},
        },
        "required": ["type"],
    },
    "anthropic_requests.Message.role": {"enum": ["user", "assistant"]},
    "anthropic_requests.Message.content": {"anyOf": [{"type": "string"}, _BLOCKS]},
}

# Parts of a request that mean nothing without these; what a request itself needs stands with its route.
REQUIRED = {
    "openai_requests.Message": ["role", "content"],
    "anthropic_requests.Message": ["role", "content"],
}
