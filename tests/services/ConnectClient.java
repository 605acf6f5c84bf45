import java.util.HashMap;
import java.util.Map;
import org.sourcelab.kafka.connect.apiclient.Configuration;
import org.sourcelab.kafka.connect.apiclient.KafkaConnectClient;
import org.sourcelab.kafka.connect.apiclient.request.dto.ConnectorPluginConfigDefinition;
import org.sourcelab.kafka.connect.apiclient.request.dto.NewConnectorDefinition;
import org.sourcelab.kafka.connect.apiclient.request.post.PostConnectorRestart;
import org.sourcelab.kafka.connect.apiclient.rest.exceptions.InvalidRequestException;

/** Calls all that this client of Kafka Connect has, and ends with an error where an answer is not what its users rely on. */
public final class ConnectClient {
    private static void check(boolean holds, String what, Object found) {
        if (!holds) throw new AssertionError(what + ": " + found);
        System.out.println(what);
    }

    private static void refused(String what, Runnable call) {
        try {
            call.run();
        } catch (InvalidRequestException refusal) {
            check(refusal.getMessage().contains("config lives in files"), what, refusal.getMessage());
            return;
        }
        throw new AssertionError(what + " was not refused");
    }

    public static void main(String[] arguments) {
        String url = arguments[0], token = arguments[1], name = arguments[2];
        KafkaConnectClient client = new KafkaConnectClient(new Configuration(url).useBasicAuth("ci", token));
        var version = client.getConnectServerVersion();
        check(version.getVersion().startsWith("4."), "version", version);
        check(client.getConnectors().contains(name), "list", client.getConnectors());
        var all = client.getConnectorsWithAllExpandedMetadata();
        check(all.getStatusForConnector(name).getConnector().get("state").equals("RUNNING"), "expanded status", all);
        check(all.getDefinitionForConnector(name).getConfig().containsKey("connector.class"), "expanded info", all);
        check(client.getConnectorsWithExpandedInfo().getConnectorNames().contains(name), "info", name);
        check(client.getConnectorsWithExpandedStatus().getConnectorNames().contains(name), "status", name);
        check(client.getConnector(name).getType().equals("sink"), "definition", client.getConnector(name));
        Map<String, String> config = client.getConnectorConfig(name);
        check(config.get("topics").equals("orders"), "config", config);
        var status = client.getConnectorStatus(name);
        check(status.getTasks().size() == 1, "tasks of the status", status);
        check(client.getConnectorTasks(name).size() == 1, "tasks", client.getConnectorTasks(name));
        check(client.getConnectorTaskStatus(name, 0).getState().equals("RUNNING"), "task status", status);
        check(client.getConnectorTopics(name).getTopics().contains("orders"), "topics", client.getConnectorTopics(name));
        check(client.resetConnectorTopics(name), "topics are reset", name);
        check(client.getConnectorPlugins().stream().anyMatch(p -> p.getClassName().equals(config.get("connector.class"))),
            "plugins", client.getConnectorPlugins());
        var valid = client.validateConnectorPluginConfig(new ConnectorPluginConfigDefinition("SqliteSink", config));
        check(valid.getErrorCount() == 0, "valid", valid);
        Map<String, String> wrong = new HashMap<>(config);
        wrong.put("projection", "nothing");
        var invalid = client.validateConnectorPluginConfig(new ConnectorPluginConfigDefinition("SqliteSink", wrong));
        check(invalid.getErrorCount() == 1, "invalid", invalid);
        check(client.pauseConnector(name), "pause", name);
        check(client.resumeConnector(name), "resume", name);
        check(client.restartConnector(name), "restart", name);
        check(client.restartConnector(new PostConnectorRestart(name).withIncludeTasks(true)), "restart with tasks", name);
        refused("create", () -> client.addConnector(
            NewConnectorDefinition.newBuilder().withName("new").withConfig(config).build()));
        refused("update", () -> client.updateConnectorConfig(name, config));
        refused("delete", () -> client.deleteConnector(name));
    }
}
