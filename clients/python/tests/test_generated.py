import ast
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PROTOS = HERE / "../../protos/rho/scoring/v1"


class SyntaxTest(unittest.TestCase):
    def test_is_that_of_python_3_9(self):
        for path in [*HERE.glob("rho_client/**/*.py"), *HERE.glob("examples/*.py")]:
            with self.subTest(path.name):
                ast.parse(path.read_text(), path.name, feature_version=(3, 9))


@unittest.skipUnless(shutil.which("protoc") and PROTOS.exists(), "protoc is not installed")
class GeneratedCodeTest(unittest.TestCase):
    def test_is_that_of_the_protos(self):
        from google.protobuf import descriptor_pb2
        from rho_client._proto import scoring_pb2

        wanted = descriptor_pb2.FileDescriptorSet()
        with tempfile.NamedTemporaryFile() as out:
            subprocess.run(["protoc", f"--proto_path=rho_client/_proto={PROTOS}", f"--descriptor_set_out={out.name}", "rho_client/_proto/scoring.proto"], check=True)
            wanted.ParseFromString(Path(out.name).read_bytes())
        for message in wanted.file[0].message_type:
            for field in message.field:
                field.ClearField("json_name")  # left out of generated code
        have = descriptor_pb2.FileDescriptorProto.FromString(scoring_pb2.DESCRIPTOR.serialized_pb)
        self.assertEqual(have, wanted.file[0], "run clients/python/generate.sh")


if __name__ == "__main__":
    unittest.main()
