import java.io.PrintWriter;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.junit.platform.launcher.listeners.SummaryGeneratingListener;

class SeedjaxRunner {
    public static void main(String[] names) {
        var builder = LauncherDiscoveryRequestBuilder.request();
        for (String name : names)
            builder.selectors(DiscoverySelectors.selectClass(name));
        var listener = new SummaryGeneratingListener();
        LauncherFactory.create().execute(builder.build(), listener);
        var summary = listener.getSummary();
        summary.printFailuresTo(new PrintWriter(System.out, true), 5);
        long passed = summary.getTestsSucceededCount();
        if (passed == 0 || passed != summary.getTestsFoundCount()) {
            System.out.println("Error: " + passed + " of "
                + summary.getTestsFoundCount() + " tests pass");
            System.exit(1);
        }
        System.out.println("seedjax-end-of-test");
        System.exit(0);
    }
}
