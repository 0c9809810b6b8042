# Usage: validate.py FILE, of lines {"schema": ..., "text": ...}. Prints each text that is not of its schema, and how many were read.
import datetime
import decimal
import json
import re
import sys

import jsonschema


decimal.getcontext().prec = 400


def multiple_of(validator, step, value, schema):
    # In decimal: 0.07 is seven times 0.01, which binary floats do not say.
    if isinstance(value, (int, decimal.Decimal)) and not isinstance(value, bool) and value % step != 0:
        yield jsonschema.ValidationError(f"{value} is not a multiple of {step}")


checker = jsonschema.FormatChecker(formats=("date", "email", "ipv4", "ipv6", "uuid"))


@checker.checks("date-time")
def is_date_time(value):
    try:
        datetime.datetime.fromisoformat(re.sub(r"\.\d+", "", value).replace("Z", "+00:00"))
        return "T" in value
    except ValueError:
        return False


types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "number", lambda _, value: isinstance(value, (int, decimal.Decimal)) and not isinstance(value, bool)
)
Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"multipleOf": multiple_of}, type_checker=types)

count, wrong = 0, 0
for line in open(sys.argv[1], encoding="utf-8"):
    drawn = json.loads(line, parse_float=decimal.Decimal)
    try:
        value = json.loads(drawn["text"], parse_float=decimal.Decimal)
        errors = list(Validator(drawn["schema"], format_checker=checker).iter_errors(value))
    except ValueError as error:
        errors = [error]
    if errors:
        wrong += 1
        print(errors[0], line, file=sys.stderr)
    count += 1
print(count)
sys.exit(1 if wrong else 0)
