"""The messages and calls of lab.Lab, made here so that no generated code is needed."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto
file = descriptor_pb2.FileDescriptorProto(name="lab.proto", package="lab", syntax="proto3")
message = file.message_type.add(name="Message")
message.field.add(name="text", number=1, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
message.field.add(name="number", number=2, type=Field.TYPE_INT64, label=Field.LABEL_OPTIONAL)
message.field.add(name="data", number=3, type=Field.TYPE_BYTES, label=Field.LABEL_OPTIONAL)
service = file.service.add(name="Lab")
KINDS = {"Unary": (False, False), "Down": (False, True), "Up": (True, False), "Both": (True, True)}
for name, (up, down) in KINDS.items():
    service.method.add(
        name=name, input_type=".lab.Message", output_type=".lab.Message", client_streaming=up, server_streaming=down
    )
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
Message = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("lab.Message"))
