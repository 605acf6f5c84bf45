import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.SchemaNormalization;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.message.BinaryMessageEncoder;

/**
 * Encodes values as single objects by Java's own Avro: reads from its standard input {"schemas": [JSON as text], "values":
 * [{"schema": the place of its schema, "value": in Avro's JSON}]}, and answers {"keys": [the schemas' fingerprints as big-endian
 * longs in hex], "values": [hex]}.
 */
public final class SingleObject {
    public static void main(String[] arguments) throws Exception {
        JsonNode work = new ObjectMapper().readTree(System.in);
        List<Schema> schemas = new ArrayList<>();
        List<String> keys = new ArrayList<>(), values = new ArrayList<>();
        for (JsonNode text : work.get("schemas")) {
            Schema schema = new Schema.Parser().parse(text.asText());
            schemas.add(schema);
            long fingerprint = SchemaNormalization.parsingFingerprint64(schema);
            keys.add(HexFormat.of().formatHex(ByteBuffer.allocate(8).putLong(fingerprint).array()));
        }
        for (JsonNode value : work.get("values")) {
            Schema schema = schemas.get(value.get("schema").asInt());
            var decoder = DecoderFactory.get().jsonDecoder(schema, value.get("value").toString());
            Object datum = new GenericDatumReader<Object>(schema).read(null, decoder);
            var out = new ByteArrayOutputStream();
            new BinaryMessageEncoder<Object>(new GenericData(), schema).encode(datum, out);
            values.add(HexFormat.of().formatHex(out.toByteArray()));
        }
        System.out.println(new ObjectMapper().writeValueAsString(Map.of("keys", keys, "values", values)));
    }
}
